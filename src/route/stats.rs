//! What routes count beside the clusters they lead to: `VirtualHost.virtual_clusters`, whose
//! requests are counted together whatever their route, and `Route.stat_prefix`.

use std::sync::Arc;

use http::StatusCode;
use smallvec::SmallVec;

use crate::config::matcher::HeaderMatcher;
use crate::exchange::RequestHead;
use crate::telemetry::metrics::count_class;

crate::stats! {
    /// Cells of a virtual cluster, or of a route.
    pub struct RequestStats {
        /// Requests for a cluster that exists.
        counter upstream_rq_total,
        /// Requests answered.
        counter upstream_rq_completed,
        /// Answers of class 1xx.
        counter upstream_rq_1xx,
        /// Answers of class 2xx.
        counter upstream_rq_2xx,
        /// Answers of class 3xx.
        counter upstream_rq_3xx,
        /// Answers of class 4xx.
        counter upstream_rq_4xx,
        /// Answers of class 5xx.
        counter upstream_rq_5xx,
        /// Requests whose route timeout passed.
        counter upstream_rq_timeout,
        /// Requests tried again.
        counter upstream_rq_retry,
        /// Retries refused by the circuit breaker.
        counter upstream_rq_retry_overflow,
        /// Requests whose last retry was answered well enough.
        counter upstream_rq_retry_success,
        /// Requests that would have been tried again if they might.
        counter upstream_rq_retry_limit_exceeded,
        /// From the request's head to the end of its response.
        histogram upstream_rq_time,
    }
}

/// Where one request counts.
#[derive(Debug, Default)]
pub struct RequestCounts(pub(super) SmallVec<[Arc<RequestStats>; 2]>);

impl RequestCounts {
    /// Whether there is nowhere to count.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts in every place.
    pub fn each(&self, count: impl Fn(&RequestStats)) {
        self.0.iter().for_each(|stats| count(stats));
    }

    /// Counts an answer.
    pub fn answered(&self, status: StatusCode) {
        self.each(|stats| {
            stats.upstream_rq_completed.inc();
            count_class(
                status,
                [
                    &stats.upstream_rq_1xx,
                    &stats.upstream_rq_2xx,
                    &stats.upstream_rq_3xx,
                    &stats.upstream_rq_4xx,
                    &stats.upstream_rq_5xx,
                ],
            );
        });
    }
}

/// The virtual clusters of a virtual host; a request counts in the first that it matches.
#[derive(Debug)]
pub(super) struct VirtualClusters {
    pub(super) clusters: Box<[VirtualCluster]>,
    /// For requests that match none.
    pub(super) other: Arc<RequestStats>,
}

#[derive(Debug)]
pub(super) struct VirtualCluster {
    /// All must match.
    pub(super) headers: Box<[HeaderMatcher]>,
    pub(super) stats: Arc<RequestStats>,
}

impl VirtualClusters {
    pub(super) fn find(&self, head: &RequestHead) -> &Arc<RequestStats> {
        let matches =
            |cluster: &&VirtualCluster| cluster.headers.iter().all(|header| header.matches(head));
        self.clusters.iter().find(matches).map_or(&self.other, |cluster| &cluster.stats)
    }
}
