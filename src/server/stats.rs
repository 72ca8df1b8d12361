//! What the server says of itself, under `server.`

crate::stats! {
    /// Cells of the process.
    pub struct ServerStats {
        /// 1 while traffic is served.
        gauge live,
        /// Worker threads.
        gauge concurrency,
    }
}
