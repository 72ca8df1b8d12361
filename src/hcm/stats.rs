//! What a connection manager counts, under `http.STAT_PREFIX.`

use http::{StatusCode, Version};

use crate::telemetry::metrics::count_class;

crate::stats! {
    /// Cells of one stat prefix.
    pub struct HttpStats {
        /// Connections accepted.
        counter downstream_cx_total,
        /// Connections open now.
        gauge downstream_cx_active,
        /// Connections that spoke HTTP/1.
        counter downstream_cx_http1_total,
        /// HTTP/1 connections open now.
        gauge downstream_cx_http1_active,
        /// Connections that spoke HTTP/2.
        counter downstream_cx_http2_total,
        /// HTTP/2 connections open now.
        gauge downstream_cx_http2_active,
        /// Connections closed because nothing happened on them.
        counter downstream_cx_idle_timeout,
        /// Connections closed because they had lived long enough.
        counter downstream_cx_max_duration_reached,
        /// Connections closed after their last allowed request.
        counter downstream_cx_max_requests_reached,
        /// Connections closed because their listener drained.
        counter downstream_cx_drain_close,
        /// Connections that broke the protocol.
        counter downstream_cx_protocol_error,
        /// Requests.
        counter downstream_rq_total,
        /// Requests in flight.
        gauge downstream_rq_active,
        /// Requests over HTTP/1.
        counter downstream_rq_http1_total,
        /// Requests over HTTP/2.
        counter downstream_rq_http2_total,
        /// Responses begun.
        counter downstream_rq_completed,
        /// Responses of class 1xx.
        counter downstream_rq_1xx,
        /// Responses of class 2xx.
        counter downstream_rq_2xx,
        /// Responses of class 3xx.
        counter downstream_rq_3xx,
        /// Responses of class 4xx.
        counter downstream_rq_4xx,
        /// Responses of class 5xx.
        counter downstream_rq_5xx,
        /// Requests whose client left before the response was whole.
        counter downstream_rq_rx_reset,
        /// Streams we reset.
        counter downstream_rq_tx_reset,
        /// Streams on which nothing moved for too long.
        counter downstream_rq_idle_timeout,
        /// Streams that lived too long.
        counter downstream_rq_max_duration_reached,
        /// HTTP/2 connections closed because most of their streams were reset before an answer.
        counter downstream_rq_too_many_premature_resets,
        /// Requests whose head did not arrive in time.
        counter downstream_rq_header_timeout,
        /// Requests that did not arrive in time.
        counter downstream_rq_timeout,
        /// Requests whose path has no normal form.
        counter downstream_rq_failed_path_normalization,
        /// Requests sent to the normal form of their path.
        counter downstream_rq_redirected_with_normalized_path,
        /// Headers removed for an underscore in their name.
        counter dropped_headers_with_underscores,
        /// Requests refused for an underscore in a header's name.
        counter requests_rejected_with_underscores_in_headers,
        /// From a request's head to the end of its response.
        histogram downstream_rq_time,
    }
}

impl HttpStats {
    /// Counts a request that began.
    pub fn count_request(&self, version: Version) {
        self.downstream_rq_total.inc();
        self.downstream_rq_active.inc();
        match version {
            Version::HTTP_2 => self.downstream_rq_http2_total.inc(),
            _ => self.downstream_rq_http1_total.inc(),
        }
    }

    /// Counts a response by its class.
    pub fn count_response(&self, status: StatusCode) {
        self.downstream_rq_completed.inc();
        count_class(
            status,
            [
                &self.downstream_rq_1xx,
                &self.downstream_rq_2xx,
                &self.downstream_rq_3xx,
                &self.downstream_rq_4xx,
                &self.downstream_rq_5xx,
            ],
        );
    }
}
