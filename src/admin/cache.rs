//! `/cache` and `/cache/purge`: what is stored in the response caches, and what is to be forgotten; the
//! latter by gRPC as well.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use tonic::Status;

use super::query::Query;
use super::{Admin, Reply};
use crate::filter::cache::{Purged, SharedCache, Target, purge};
use crate::filter::kept::Kept;
use crate::proto::nuncio::service::cache::v1::cache_service_server::CacheService;
use crate::proto::nuncio::service::cache::v1::{PurgeRequest, PurgeResponse, purge_request};

/// The fields that say what to purge.
const TARGETS: [&str; 5] = ["url", "prefix", "pattern", "tag", "everything"];

/// What is in each cache.
pub(super) fn show(caches: &Kept<SharedCache>) -> Reply {
    let show = |(place, cache): &(crate::filter::registry::FilterContext, Arc<SharedCache>)| {
        let stats = &cache.store.stats;
        json!({
            "stat_prefix": &*place.stat_prefix,
            "filter": &*place.name,
            "entries": stats.entries.value(),
            "bytes": stats.bytes.value(),
            "fetching": stats.fetching.value(),
            "hits": stats.hit.value(),
            "misses": stats.miss.value(),
            "shared_tier": cache.tier_is_connected(),
        })
    };
    let caches: Vec<Value> = caches.all().iter().map(show).collect();
    Reply::json(&json!({ "caches": caches }))
}

/// Purges what the query names.
pub(super) async fn purge_by_query(caches: &Kept<SharedCache>, query: &Query) -> Reply {
    let bad = |text: String| Reply::error(StatusCode::BAD_REQUEST, text);
    let named: Vec<&'static str> = TARGETS.into_iter().filter(|target| query.has(target)).collect();
    let [field] = named[..] else {
        return bad(format!("what to purge is one of {}\n", TARGETS.join(", ")));
    };
    let target = match Target::parse(field, query.value(field).unwrap_or_default()) {
        Ok(target) => target,
        Err(error) => return bad(format!("{error}\n")),
    };
    let soft = match query.value("soft") {
        None | Some("false") => false,
        Some("" | "true") => true,
        Some(other) => return bad(format!("soft: {other:?} is not true or false\n")),
    };
    let stat_prefix = query.value("stat_prefix");
    let Purged { hit, caches, untold } = match purge(caches, stat_prefix, &target, soft).await {
        Ok(purged) => purged,
        Err(error) => {
            return Reply::error(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
        }
    };
    if caches == 0 && stat_prefix.is_some() {
        return Reply::error(StatusCode::NOT_FOUND, "stat_prefix: there is no such cache\n");
    }
    Reply::json(&json!({ "purged": hit, "caches": caches, "untold": untold }))
}

/// The gRPC service on the admin listener.
pub(super) struct Service(pub(super) Arc<Admin>);

#[tonic::async_trait]
impl CacheService for Service {
    async fn purge(
        &self,
        request: tonic::Request<PurgeRequest>,
    ) -> Result<tonic::Response<PurgeResponse>, Status> {
        use purge_request::Target as Asked;
        let PurgeRequest { target, soft, stat_prefix } = request.into_inner();
        let target = match &target {
            Some(Asked::Url(text)) => Target::parse("url", text),
            Some(Asked::Prefix(text)) => Target::parse("prefix", text),
            Some(Asked::Pattern(text)) => Target::parse("pattern", text),
            Some(Asked::Tag(text)) => Target::parse("tag", text),
            Some(Asked::Everything(true)) => Ok(Target::Everything),
            Some(Asked::Everything(false)) | None => {
                let text = format!("what to purge is one of {}", TARGETS.join(", "));
                return Err(Status::invalid_argument(text));
            }
        };
        let target = target.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let stat_prefix = (!stat_prefix.is_empty()).then_some(&*stat_prefix);
        let purged = purge(&self.0.caches, stat_prefix, &target, soft).await;
        let Purged { hit, caches, untold } =
            purged.map_err(|error| Status::internal(error.to_string()))?;
        if caches == 0 && stat_prefix.is_some() {
            return Err(Status::not_found("stat_prefix: there is no such cache"));
        }
        Ok(tonic::Response::new(PurgeResponse { purged: hit, untold }))
    }
}
