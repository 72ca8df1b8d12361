//! What stories are told with: the real binary, scripted origins and management servers, clients
//! that can do what no library lets them, and waiting for conditions instead of for time.

pub(crate) mod client;
pub(crate) mod control;
pub(crate) mod origin_script;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod resources;
pub(crate) mod scrape;
pub(crate) mod scripted;
pub(crate) mod upstream;
pub(crate) mod wait;

pub(crate) use client::{Answer, Http1, Http2, get, request};
pub(crate) use control::Plane;
pub(crate) use origin_script::{Ending, Script};
pub(crate) use process::{run, run_in};
pub(crate) use proxy::{Proxy, ProxyBuilder};
pub(crate) use scripted::{Kind, Management, ack_of, delta, nack_of, sotw};
pub(crate) use upstream::Origin;
pub(crate) use wait::{eventually, pace};
