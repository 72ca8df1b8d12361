//! How long a request may take by what its client says in `grpc-timeout`, and how long a stream may
//! live at all.

use std::time::Duration;

use crate::exchange::{RequestHead, grpc_timeout};

/// `RouteAction.MaxStreamDuration`: from the request's first byte to the response's last.
#[derive(Debug)]
pub struct StreamDuration {
    /// Zero is for ever.
    pub(super) most: Option<Duration>,
    /// With it the client decides, up to so long; zero is as long as the client likes.
    pub(super) grpc_most: Option<Duration>,
    /// So much earlier than the client, so that it hears of it.
    pub(super) grpc_offset: Duration,
}

impl StreamDuration {
    /// The limit of a request, in place of what the connection manager says; `None` is for ever. An
    /// upstream is told of one that the client has set.
    pub fn limit(&self, head: &mut RequestHead, inherited: Option<Duration>) -> Option<Duration> {
        let asked = self.grpc_most.zip(grpc_timeout::read(&head.headers));
        let Some((most, asked)) = asked else {
            return self.most.or(inherited).filter(|limit| !limit.is_zero());
        };
        let capped = if most.is_zero() { asked } else { asked.min(most) };
        let limit = capped.saturating_sub(self.grpc_offset);
        grpc_timeout::write(&mut head.headers, limit);
        Some(limit)
    }
}

/// `RouteAction.max_grpc_timeout` and `grpc_timeout_offset`: the client of gRPC sets the route's
/// timeout.
#[derive(Debug)]
pub struct GrpcTimeout {
    /// Zero is as long as the client likes.
    pub(super) most: Duration,
    pub(super) offset: Duration,
}

impl GrpcTimeout {
    /// The timeout of a request; `None` is for ever.
    pub fn limit(&self, head: &RequestHead) -> Option<Duration> {
        let asked = grpc_timeout::read(&head.headers).unwrap_or_default();
        // One that would be used up, or is not there, stays: less would make it infinite.
        let asked = if self.offset < asked { asked - self.offset } else { asked };
        let is_over = asked.is_zero() || asked > self.most;
        let limit = if !self.most.is_zero() && is_over { self.most } else { asked };
        Some(limit).filter(|limit| !limit.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn head(timeout: Option<&str>) -> RequestHead {
        let mut request = http::Request::post("/");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_client_decides_only_up_to_what_the_route_allows() {
        let route =
            |most, grpc_most, offset| StreamDuration { most, grpc_most, grpc_offset: ms(offset) };
        let cases = [
            (route(None, None, 0), Some("1S"), Some(ms(900)), "1S"),
            (route(Some(ms(0)), None, 0), Some("1S"), None, "1S"),
            (route(Some(ms(700)), None, 0), None, Some(ms(700)), ""),
            (route(Some(ms(700)), Some(ms(500)), 0), None, Some(ms(700)), ""),
            (route(None, Some(ms(500)), 0), Some("1S"), Some(ms(500)), "500m"),
            (route(None, Some(ms(500)), 0), Some("300m"), Some(ms(300)), "300m"),
            (route(None, Some(ms(0)), 0), Some("1S"), Some(ms(1000)), "1000m"),
            (route(None, Some(ms(500)), 100), Some("300m"), Some(ms(200)), "200m"),
            (route(None, Some(ms(500)), 400), Some("300m"), Some(ms(0)), "0m"),
        ];
        for (duration, asked, expected, told) in cases {
            let mut head = head(asked);
            assert_eq!(duration.limit(&mut head, Some(ms(900))), expected, "{duration:?}");
            let header = head.headers.get("grpc-timeout").map_or("", |v| v.to_str().unwrap());
            assert_eq!(header, told, "{duration:?}");
        }
    }

    #[test]
    fn the_older_fields_set_the_route_s_timeout() {
        for (most, offset, asked, expected) in [
            (500, 0, Some("300m"), Some(ms(300))),
            (500, 0, Some("1S"), Some(ms(500))),
            (500, 0, None, Some(ms(500))),
            (0, 0, None, None),
            (0, 0, Some("1S"), Some(ms(1000))),
            (500, 100, Some("300m"), Some(ms(200))),
            (500, 300, Some("300m"), Some(ms(300))),
        ] {
            let route = GrpcTimeout { most: ms(most), offset: ms(offset) };
            assert_eq!(route.limit(&head(asked)), expected, "{route:?} {asked:?}");
        }
    }
}
