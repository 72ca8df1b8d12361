//! A shared HTTP cache: RFC 9111 as arithmetic, and a store. There is no transport in it; the filter
//! `cache` asks it and fills it.
//!
//! ```text
//! directives   Cache-Control and its like, read
//! policy       what may be stored, how long it is fresh, what a request takes
//! key, vary    by what responses are found: the target, and the headers in Vary
//! range        parts of a body
//! entry        a stored response
//! copies       large bodies in files as well, from where they are sent cheaper
//! store        a bounded table that the workers share
//! lead         who fetches what many ask for
//! flight       a response that is handed out while it arrives
//! index        what a purge hits
//! tier         a second place, on a server that a fleet of proxies shares
//! wire         what is told and given to it, as bytes
//! ```
//!
//! It can be used without the proxy:
//!
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use bytes::Bytes;
//! use http::{HeaderMap, StatusCode};
//! use nuncio::cache::{
//!     Bounds, Entry, Key, Lookup, Policy, Scope, Store, Stored, UrlPattern, Variant,
//! };
//!
//! let store = Store::new(Bounds { entries: 1_000, bytes: 10 << 20 }, Default::default());
//! let key = Key::new("http", "example.test", "/users/1");
//!
//! // What the origin answered: may it be stored, and for how long is it fresh?
//! let request = HeaderMap::new();
//! let mut headers = HeaderMap::new();
//! headers.insert("cache-control", "max-age=60".parse()?);
//! let now = (SystemTime::now(), Duration::ZERO);
//! let freshness = Policy::default().judge(&request, (StatusCode::OK, &headers), now)?;
//!
//! let variant = Variant::of(&headers, &request);
//! let mut entry = Entry::new((StatusCode::OK, headers), variant, freshness);
//! entry.body = Stored::copy_of([Bytes::from_static(b"alice")].iter());
//! store.insert(key.clone(), entry);
//! let Lookup::Found(found) = store.get(&key, &request) else { panic!("it was stored") };
//! assert_eq!(found.body.pieces(), [Bytes::from_static(b"alice")]);
//!
//! // All users are forgotten, and it says how many they were.
//! let users = Scope::Pattern(UrlPattern::parse("/users/*")?);
//! assert_eq!(store.purge(&users, false), 1);
//! assert!(matches!(store.get(&key, &request), Lookup::Nothing));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod copies;
pub mod directives;
pub mod entry;
pub mod flight;
pub mod glob;
mod index;
pub mod key;
pub mod lead;
pub mod policy;
pub mod range;
mod stats;
pub mod store;
pub mod tier;
pub mod vary;
pub mod wire;

pub use self::entry::{Entry, Other, Stored};
pub use self::flight::{Flight, Follower, Outcome};
pub use self::glob::{Glob, UrlPattern};
pub use self::index::Scope;
pub use self::key::{Key, KeyPolicy};
pub use self::lead::{Lead, Leader};
pub use self::policy::{Freshness, MediaRange, Policy, StalePolicy, Uncacheable, Use};
pub use self::range::{Part, Ranges};
pub use self::stats::CacheStats;
pub use self::store::{Bounds, Lookup, Reservation, Store, Ticket};
pub use self::vary::{Variant, vary};
