//! What the HTTP/2 codec counts, under `http2.`

crate::stats! {
    /// Cells of all connections with clients.
    pub struct Http2Stats {
        /// Ends of connections announced.
        counter goaway_sent,
        /// Requests with larger heads than are taken.
        counter header_overflow,
        /// Heads of streams that are not taken any more.
        counter headers_cb_no_stream,
        /// Connections closed for frames with nothing in them.
        counter inbound_empty_frames_flood,
        /// Connections closed for too many priorities.
        counter inbound_priority_frames_flood,
        /// Connections closed for too many window updates.
        counter inbound_window_update_frames_flood,
        /// Connections closed because a ping was not answered.
        counter keepalive_timeout,
        /// Connections closed because their clients took none of the answers to control frames.
        counter outbound_control_flood,
        /// Connections closed because too many frames waited for their clients.
        counter outbound_flood,
        /// Requests that were malformed.
        counter rx_messaging_error,
        /// Streams reset by clients.
        counter rx_reset,
        /// Streams refused because there were enough.
        counter stream_refused_errors,
        /// Requests and responses with trailers.
        counter trailers,
        /// Streams reset because their clients took nothing for too long.
        counter tx_flush_timeout,
        /// Streams reset by us.
        counter tx_reset,
        /// Streams open now.
        gauge streams_active,
    }
}
