//! What a fleet of proxies shares: looked at before the origin is asked, filled behind, and told of purges.
//!
//! A response that depends on nothing stands under its key. Where responses depend on request headers, the
//! names of these stand there, and each response under the key, what the headers were, and a mark: who forgets
//! the key forgets the mark, and with it all of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::cache::tier::{Config, Event, Found, Stamp, Tier, TierStats, start};
use crate::cache::wire::{self, Record};
use crate::cache::{Entry, Key, Scope, Store, Variant};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::nuncio::extensions::filters::http::cache::v1::cache as proto;

const DEFAULT_PREFIX: &str = "nuncio:";
/// The longest that a request may be made to wait.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A larger body is not worth the way.
const LARGEST: u64 = 8 << 20;
/// Responses that can be validated are of use when they are stale.
const KEPT_FOR_VALIDATION: Duration = Duration::from_secs(3_600);

/// Compiles the tier's configuration.
pub(super) fn compile(message: &proto::SharedTier) -> Result<Config, Errors> {
    let proto::SharedTier { redis, cluster, timeout, prefix } = message;
    let timeout = timeout.as_ref().map(fields::positive_duration).transpose().at("timeout")?;
    if let Some(timeout) = timeout.filter(|timeout| *timeout > LONGEST_TIMEOUT) {
        let fault = Fault::out_of_range(format!("{timeout:?}"), "5s or less");
        return Err(Errors::from(fault).at("timeout"));
    }
    let config = Config {
        addresses: redis.clone(),
        cluster: *cluster,
        timeout: timeout.unwrap_or(crate::cache::tier::DEFAULT_TIMEOUT),
        prefix: if prefix.is_empty() { DEFAULT_PREFIX.to_owned() } else { prefix.clone() },
    };
    config.check().map_err(|error| Fault::invalid(error, "no shared tier can be had"))?;
    Ok(config)
}

/// The tier of a store.
pub(super) struct SharedTier {
    pub(super) config: Config,
    tier: Arc<dyn Tier>,
}

/// What a fill must know to be kept there as well.
pub(super) struct Behind {
    tier: Arc<SharedTier>,
    /// For what stands under the key.
    stamp: Stamp,
    /// What is known to stand there: names and mark.
    varies: Option<(Vec<HeaderName>, u64)>,
}

impl SharedTier {
    pub(super) fn start(
        config: &Config,
        runtime: &Handle,
        stats: Arc<TierStats>,
        store: &Arc<Store>,
    ) -> Option<Arc<Self>> {
        let store = Arc::downgrade(store);
        let on_event = move |event| {
            let Some(store) = store.upgrade() else { return };
            match event {
                Event::Message(message) => {
                    if let Some((scope, soft)) = wire::purged(message) {
                        store.purge_uncounted(&scope, soft);
                    }
                }
                // Whatever was purged meanwhile: nothing is used without asking.
                Event::Missed => drop(store.purge_uncounted(&Scope::Everything, true)),
            }
        };
        match start(config.clone(), runtime, stats, Box::new(on_event)) {
            Ok(tier) => Some(Arc::new(Self { config: config.clone(), tier })),
            Err(error) => {
                // It was checked when it was compiled.
                tracing::error!(%error, "a cache goes without its shared tier");
                None
            }
        }
    }

    /// What is there for a request, and what a fill needs that follows if there is nothing.
    pub(super) async fn look_up(
        self: &Arc<Self>,
        key: &Key,
        request: &HeaderMap,
    ) -> (Option<Entry>, Behind) {
        let looked = self.tier.get(key.as_str().as_bytes()).await;
        let mut behind = Behind { tier: Arc::clone(self), stamp: looked.stamp, varies: None };
        let entry = match looked.found.and_then(|found| good(key, found)) {
            None => None,
            Some(Record::Response(entry)) => Some(*entry),
            Some(Record::Varies(names, mark)) => {
                let at = key_of_variant(key, &variant(&names, request), mark);
                behind.varies = Some((names, mark));
                match self.tier.get(&at).await.found.and_then(|found| good(key, found)) {
                    Some(Record::Response(entry)) => Some(*entry),
                    Some(Record::Varies(..)) | None => None,
                }
            }
        };
        (entry.filter(|entry| entry.variant.matches(request)), behind)
    }

    /// A fill begins that does not look first.
    pub(super) fn begin(self: &Arc<Self>) -> Behind {
        Behind { tier: Arc::clone(self), stamp: self.tier.stamp(), varies: None }
    }

    /// Tells the others that a key is forgotten.
    pub(super) fn forget(&self, key: &Key) {
        let message = wire::purge(&Scope::url_of(key), false);
        // It is told as soon as it can be; nobody waits.
        drop(self.tier.forget(vec![Bytes::copy_from_slice(key.as_str().as_bytes())], message));
    }

    /// Tells the others of a purge; false if the server does not know of it yet.
    pub(super) async fn purge(&self, scope: &Scope, soft: bool) -> bool {
        self.tier.purge(wire::purge(scope, soft)).confirmed().await
    }

    /// The same without waiting.
    pub(super) fn purge_behind(&self, scope: &Scope, soft: bool) {
        drop(self.tier.purge(wire::purge(scope, soft)));
    }
}

impl Behind {
    /// Keeps what was stored for the others too.
    pub(super) fn keep(self, key: &Key, entry: &Entry) {
        let Self { tier: shared, stamp, varies } = self;
        let fresh = &entry.freshness;
        let validated = if entry.can_be_validated() { KEPT_FOR_VALIDATION } else { Duration::ZERO };
        let stale = fresh.stale_while_revalidate.max(fresh.stale_if_error).max(validated);
        let until = fresh.lifetime.saturating_add(stale);
        let ttl = until.saturating_sub(entry.age(Instant::now()));
        if ttl.is_zero() || entry.is_marked() || entry.body.length() > LARGEST {
            return;
        }
        let value = wire::response(entry);
        if entry.variant.is_empty() {
            let key = Bytes::copy_from_slice(key.as_str().as_bytes());
            shared.tier.fill(key, value, ttl, &stamp);
            return;
        }
        let names: Vec<&HeaderName> = entry.variant.parts().iter().map(|(name, _)| name).collect();
        let known = varies.filter(|(known, _)| known.iter().eq(names.iter().copied()));
        let mark = known.map_or_else(rand::random, |(_, mark)| mark);
        let list = wire::varies(names.into_iter(), mark);
        let at = key_of_variant(key, &entry.variant, mark).into();
        // Of its own key nothing is known; what is new under a mark was never forgotten.
        shared.tier.fill(at, value, ttl, &stamp);
        let key = Bytes::copy_from_slice(key.as_str().as_bytes());
        shared.tier.fill(key, list, ttl, &stamp);
    }
}

/// A value that can be read, and that no purge since its fill speaks of.
fn good(key: &Key, found: Found) -> Option<Record> {
    let record = wire::record(found.value)?;
    for purge in found.purges {
        // A purge that cannot be read may speak of anything.
        let (scope, soft) = wire::purged(purge)?;
        match &record {
            Record::Response(entry) if scope.speaks_of(key, entry) => match soft {
                true => entry.mark(),
                false => return None,
            },
            Record::Response(_) | Record::Varies(..) => {}
        }
    }
    Some(record)
}

fn variant(names: &[HeaderName], request: &HeaderMap) -> Variant {
    Variant::of_names(names.iter().cloned(), request)
}

fn key_of_variant(key: &Key, variant: &Variant, mark: u64) -> Vec<u8> {
    let mut at = format!("{}\0{mark:016x}", key.as_str()).into_bytes();
    for (name, value) in variant.parts() {
        at.push(0);
        at.extend_from_slice(name.as_str().as_bytes());
        match value {
            // No header's value has these bytes in it.
            None => at.push(1),
            Some(value) => {
                at.push(2);
                at.extend_from_slice(value);
            }
        }
    }
    at
}
