//! What a listener counts, under `listener.ADDRESS.`

crate::stats! {
    /// Cells of one listener.
    pub struct ListenerStats {
        /// Connections accepted.
        counter downstream_cx_total,
        /// Connections open now.
        gauge downstream_cx_active,
        /// Connections that ended.
        counter downstream_cx_destroy,
        /// Connections closed at once because there were too many.
        counter downstream_cx_overflow,
        /// Attempts to accept that the system refused.
        counter downstream_accept_error,
    }
}
