//! What one cluster counts: Envoy's `cluster.NAME.*`, those of them that are really counted.

use http::StatusCode;

use crate::telemetry::metrics::count_class;

crate::stats! {
    /// Cells of one cluster. Clusters of one name share them while either lives, so that counters go
    /// on when a cluster is replaced.
    pub struct ClusterStats {
        /// Requests given to a connection.
        counter upstream_rq_total,
        /// Requests on a connection now, their responses' bodies included.
        gauge upstream_rq_active,
        /// Requests that had to wait for a connection.
        counter upstream_rq_pending_total,
        /// Requests that wait for a connection now.
        gauge upstream_rq_pending_active,
        /// Requests refused because the host would have needed a pool too many.
        counter upstream_cx_pool_overflow,
        /// Requests refused because too many waited for a connection.
        counter upstream_rq_pending_overflow,
        /// Times that endpoints were not renewed in time.
        counter assignment_stale,
        /// Endpoints received that hold for a time only.
        counter assignment_timeout_received,
        /// Requests refused to shed load, as the endpoints say.
        counter upstream_rq_drop_overload,
        /// Requests whose connection could not be made.
        counter upstream_rq_pending_failure_eject,
        /// Requests answered, by the upstream or by us for it.
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
        /// From the request on its connection to the end of the response.
        histogram upstream_rq_time,
        /// Requests given up before they had a connection.
        counter upstream_rq_cancelled,
        /// Requests reset by the upstream.
        counter upstream_rq_rx_reset,
        /// Requests reset by us.
        counter upstream_rq_tx_reset,
        /// Requests tried again.
        counter upstream_rq_retry,
        /// Retries refused by the circuit breaker.
        counter upstream_rq_retry_overflow,
        /// Requests whose last retry was answered well enough.
        counter upstream_rq_retry_success,
        /// Requests that would have been tried again if they might.
        counter upstream_rq_retry_limit_exceeded,
        /// Retries that waited a random, growing time.
        counter upstream_rq_retry_backoff_exponential,
        /// Retries that waited as long as the upstream asked for.
        counter upstream_rq_retry_backoff_ratelimited,
        /// Requests whose body was too large to be kept for another try.
        counter retry_or_shadow_abandoned,
        /// Redirects of the upstream that were followed.
        counter upstream_internal_redirect_succeeded_total,
        /// Those that ought to have been, and were passed on.
        counter upstream_internal_redirect_failed_total,
        /// Tries whose own timeout passed.
        counter upstream_rq_per_try_timeout,
        /// Tries of which nothing came for too long.
        counter upstream_rq_per_try_idle_timeout,
        /// Connections begun.
        counter upstream_cx_total,
        /// Connections that are open or being opened.
        gauge upstream_cx_active,
        /// HTTP/1.1 connections begun.
        counter upstream_cx_http1_total,
        /// HTTP/2 connections begun.
        counter upstream_cx_http2_total,
        /// Connections that could not be made, timeouts included.
        counter upstream_cx_connect_fail,
        /// Connections that were not made in time.
        counter upstream_cx_connect_timeout,
        /// How long connections took to be made.
        histogram upstream_cx_connect_ms,
        /// Connections closed.
        counter upstream_cx_destroy,
        /// Times that the connection limit was met.
        counter upstream_cx_overflow,
        /// Connections closed because nothing used them for long.
        counter upstream_cx_idle_timeout,
        /// Connections closed because they had served as many requests as allowed.
        counter upstream_cx_max_requests,
        /// Connections closed because of their age.
        counter upstream_cx_max_duration_reached,
        /// Requests for which there was no host.
        counter upstream_cx_none_healthy,
        /// Hosts.
        gauge membership_total,
        /// Hosts that are healthy.
        gauge membership_healthy,
        /// Hosts that are degraded.
        gauge membership_degraded,
        /// Times that the hosts changed.
        counter membership_change,
        /// Name resolutions or endpoint updates begun.
        counter update_attempt,
        /// Those that succeeded.
        counter update_success,
        /// Those that failed.
        counter update_failure,
        /// Those that held no endpoint.
        counter update_empty,
        /// Requests balanced over all hosts because too few were healthy.
        counter lb_healthy_panic,
    }
}

impl ClusterStats {
    /// Counts an answer given for a request to this cluster. [`LocalCluster::send`] does so for
    /// what upstreams answer and for its own failures; refusals before it and timeouts are the
    /// caller's to count.
    ///
    /// [`LocalCluster::send`]: super::LocalCluster::send
    pub fn count_response(&self, status: StatusCode) {
        self.upstream_rq_completed.inc();
        count_class(
            status,
            [
                &self.upstream_rq_1xx,
                &self.upstream_rq_2xx,
                &self.upstream_rq_3xx,
                &self.upstream_rq_4xx,
                &self.upstream_rq_5xx,
            ],
        );
    }
}
