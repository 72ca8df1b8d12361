//! A shared HTTP cache: RFC 9111 as arithmetic, and a store. There is no transport in it; the filter
//! `cache` asks it and fills it.
//!
//! ```text
//! directives   Cache-Control, read
//! policy       what may be stored, how long it is fresh, what a request takes
//! key          by what responses are found: the target, and the headers in Vary
//! store        a bounded table that the workers share
//! tier         a second place, on a server that a fleet of proxies shares
//! ```

pub mod directives;
pub mod key;
pub mod policy;
pub mod store;
pub mod tier;

pub use self::key::{Key, Variant, vary};
pub use self::policy::{Freshness, Policy, Uncacheable, Use};
pub use self::store::{Bounds, CacheStats, Entry, Store, Ticket};
