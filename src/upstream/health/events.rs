//! The event log of health checks: a line of JSON in the form of `data.core.v3.HealthCheckEvent`.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::state::{Change, Health, Verdict};
use super::{Checker, HealthConfig};
use crate::telemetry::access_log::{Sink, TimeFormat};
use crate::upstream::host::Host;

/// Where events go.
#[derive(Debug, Default)]
pub struct EventLog(pub Vec<Arc<Sink>>);

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The host was found up; for the first time?
    Added { first: bool },
    /// It was found down, or said so itself.
    Ejected(Reason),
    /// A check failed.
    Failed(Reason),
    /// A check went well.
    Succeeded,
    /// It says that it is less able than others.
    Degraded,
    /// It says so no more.
    NotDegraded,
}

/// Why a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Active,
    Passive,
    Network,
    NetworkTimeout,
}

impl Reason {
    pub(super) fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Lost { timeout: true } => Self::NetworkTimeout,
            Verdict::Lost { timeout: false } => Self::Network,
            Verdict::Bad | Verdict::Success { .. } => Self::Active,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Passive => "PASSIVE",
            Self::Network => "NETWORK",
            Self::NetworkTimeout => "NETWORK_TIMEOUT",
        }
    }
}

/// The events of one check.
pub(super) fn of_check(
    config: &HealthConfig,
    (before, after): (Health, Health),
    (verdict, change): (Verdict, Change),
) -> Vec<Event> {
    let mut events = Vec::new();
    let edge = change == Change::Edge;
    match verdict {
        Verdict::Success { .. } => {
            if edge && after.is_up() {
                events.push(Event::Added { first: before == Health::Pending });
            } else if config.log_successes {
                events.push(Event::Succeeded);
            }
        }
        Verdict::Bad | Verdict::Lost { .. } => {
            let reason = Reason::of(verdict);
            if edge {
                events.push(Event::Ejected(reason));
            }
            if config.log_failures || edge && before == Health::Pending {
                events.push(Event::Failed(reason));
            }
        }
    }
    match (before == Health::Degraded, after == Health::Degraded) {
        (false, true) => events.push(Event::Degraded),
        (true, false) if after == Health::Healthy => events.push(Event::NotDegraded),
        _ => {}
    }
    events
}

impl EventLog {
    pub(super) fn tell(&self, config: &HealthConfig, cluster: &str, host: &Host, event: Event) {
        if self.0.is_empty() {
            return;
        }
        let checker = match config.checker {
            Checker::Http(_) => "HTTP",
            Checker::Grpc(_) => "GRPC",
            Checker::Tcp(_) => "TCP",
        };
        let address = host.address();
        let mut line = json!({
            "health_checker_type": checker,
            "host": { "socket_address": { "protocol": "TCP",
                "address": address.ip().to_string(), "port_value": address.port() } },
            "cluster_name": cluster,
            "timestamp": now(),
        });
        let (name, what) = match event {
            Event::Added { first } => ("add_healthy_event", json!({ "first_check": first })),
            Event::Ejected(reason) => {
                ("eject_unhealthy_event", json!({ "failure_type": reason.name() }))
            }
            Event::Failed(reason) => {
                ("health_check_failure_event", json!({ "failure_type": reason.name() }))
            }
            Event::Succeeded => {
                ("successful_health_check_event", Value::Object(Default::default()))
            }
            Event::Degraded => ("degraded_healthy_host", Value::Object(Default::default())),
            Event::NotDegraded => ("no_longer_degraded_host", Value::Object(Default::default())),
        };
        line[name] = what;
        for sink in &self.0 {
            sink.add(|out| out.extend_from_slice(format!("{line}\n").as_bytes()));
        }
    }
}

fn now() -> String {
    let mut text = Vec::new();
    TimeFormat::default().write(SystemTime::now(), &mut text);
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::health::{TcpCheck, Timing};

    #[test]
    fn edges_are_told_and_the_rest_if_it_is_wanted() {
        use Health::{Degraded, Healthy, Pending, Unhealthy};
        let quiet = HealthConfig {
            timing: Timing::default(),
            checker: Checker::Tcp(TcpCheck::default()),
            alt_port: None,
            reuse_connection: true,
            log_failures: false,
            log_successes: false,
            events: EventLog::default(),
        };
        let loud = HealthConfig { log_failures: true, log_successes: true, ..quiet_copy(&quiet) };
        let up = Verdict::Success { degraded: false };
        let lost = Verdict::Lost { timeout: true };
        let of = |config, healths, verdict, change| of_check(config, healths, (verdict, change));
        let (edge, none) = (Change::Edge, Change::None);
        assert_eq!(of(&quiet, (Pending, Healthy), up, edge), [Event::Added { first: true }]);
        assert_eq!(of(&quiet, (Unhealthy, Healthy), up, edge), [Event::Added { first: false }]);
        assert_eq!(of(&quiet, (Healthy, Healthy), up, none), []);
        assert_eq!(of(&loud, (Healthy, Healthy), up, none), [Event::Succeeded]);
        let ejected = Event::Ejected(Reason::NetworkTimeout);
        assert_eq!(of(&quiet, (Healthy, Unhealthy), lost, edge), [ejected]);
        assert_eq!(of(&quiet, (Healthy, Healthy), lost, none), []);
        let failed = Event::Failed(Reason::NetworkTimeout);
        assert_eq!(of(&loud, (Healthy, Healthy), lost, none), [failed]);
        let degraded = Verdict::Success { degraded: true };
        assert_eq!(of(&quiet, (Healthy, Degraded), degraded, none), [Event::Degraded]);
        assert_eq!(of(&quiet, (Degraded, Healthy), up, none), [Event::NotDegraded]);
    }

    fn quiet_copy(of: &HealthConfig) -> HealthConfig {
        HealthConfig {
            timing: of.timing.clone(),
            checker: Checker::Tcp(TcpCheck::default()),
            events: EventLog::default(),
            ..*of
        }
    }
}
