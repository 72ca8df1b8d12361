//! What checks in a row make of a host, and when the next one is due. Pure: no clock, no socket.

use std::time::Duration;

use super::Timing;

/// How one check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The host is well.
    Success {
        /// It says that it is less able than others: `x-envoy-degraded`.
        degraded: bool,
    },
    /// The host says that it is not, which is believed at once.
    Bad,
    /// It gave no answer, or one that may be better the next time: believed after a few.
    Lost {
        /// There was no answer in time.
        timeout: bool,
    },
}

/// What a host is by its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// Not checked yet: takes no requests.
    Pending,
    /// Takes requests.
    Healthy,
    /// Takes those that the healthy ones cannot.
    Degraded,
    /// Takes none.
    Unhealthy,
    /// Takes none since it gave no answer in time.
    TimedOut,
    /// Takes none since a response of its own said so. It does not count as one of the hosts that
    /// make a panic.
    Excluded,
}

impl Health {
    const ALL: [Self; 6] = [
        Self::Pending,
        Self::Healthy,
        Self::Degraded,
        Self::Unhealthy,
        Self::TimedOut,
        Self::Excluded,
    ];

    /// Whether it takes requests.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded)
    }

    pub(in crate::upstream) fn from_u8(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Unhealthy)
    }
}

/// The checks of one host so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    pub(super) health: Health,
    /// Results in a row that speak against `health`.
    against: u32,
}

/// What the last result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// It is up or down now and was not before.
    Edge,
}

impl State {
    pub(super) fn new(health: Health) -> Self {
        Self { health, against: 0 }
    }

    /// Takes in a result. The first one decides at once.
    pub(super) fn take(&mut self, verdict: Verdict, timing: &Timing) -> Change {
        let first = self.health == Health::Pending;
        let was_up = self.health.is_up();
        let up = match verdict {
            Verdict::Success { degraded: false } => Health::Healthy,
            Verdict::Success { degraded: true } => Health::Degraded,
            Verdict::Lost { timeout: true } => Health::TimedOut,
            Verdict::Bad | Verdict::Lost { timeout: false } => Health::Unhealthy,
        };
        if !first && up.is_up() == was_up {
            self.against = 0;
            self.health = up;
            return Change::None;
        }
        self.against += 1;
        let enough = match verdict {
            _ if first => true,
            Verdict::Success { .. } => self.against >= timing.healthy_threshold,
            Verdict::Bad => true,
            Verdict::Lost { .. } => self.against >= timing.unhealthy_threshold,
        };
        if !enough {
            return Change::None;
        }
        (self.health, self.against) = (up, 0);
        Change::Edge
    }
}

impl Timing {
    /// How long to wait after a result; `used` says whether the cluster ever carried a request.
    /// `random` is in 0..1.
    pub(super) fn wait(
        &self,
        health: Health,
        change: Change,
        (used, random): (bool, f64),
    ) -> Duration {
        let base = match (used, health.is_up(), change) {
            (false, true, _) => self.no_traffic_healthy_interval,
            (false, false, _) => self.no_traffic_interval,
            (true, true, Change::Edge) => self.healthy_edge_interval,
            (true, true, Change::None) => self.interval,
            (true, false, Change::Edge) => self.unhealthy_edge_interval,
            (true, false, Change::None) => self.unhealthy_interval,
        };
        let percent = base.mul_f64(f64::from(self.interval_jitter_percent) / 100.0);
        base + (self.interval_jitter + percent).mul_f64(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Verdict = Verdict::Success { degraded: false };
    const LOST: Verdict = Verdict::Lost { timeout: false };

    fn timing() -> Timing {
        Timing { unhealthy_threshold: 2, healthy_threshold: 3, ..Timing::default() }
    }

    fn run(start: Health, verdicts: &[Verdict]) -> Vec<Health> {
        let mut state = State::new(start);
        verdicts
            .iter()
            .map(|verdict| {
                let before = state.health;
                let change = state.take(*verdict, &timing());
                let edge = before.is_up() != state.health.is_up() || before == Health::Pending;
                assert_eq!(change == Change::Edge, edge, "{verdicts:?}");
                state.health
            })
            .collect()
    }

    #[test]
    fn the_first_check_decides_and_later_ones_need_company() {
        use Health::{Degraded as D, Healthy as H, Pending as P, Unhealthy as U};
        let degraded = Verdict::Success { degraded: true };
        let cases: [(Health, &[Verdict], &[Health]); 8] = [
            (P, &[UP], &[H]),
            (P, &[LOST], &[U]),
            (P, &[Verdict::Bad], &[U]),
            (H, &[LOST, UP, LOST, LOST], &[H, H, H, U]),
            (H, &[Verdict::Bad], &[U]),
            (U, &[UP, UP, LOST, UP, UP, UP], &[U, U, U, U, U, H]),
            (H, &[degraded, UP], &[D, H]),
            (U, &[UP, UP, degraded], &[U, U, D]),
        ];
        for (start, verdicts, expected) in cases {
            assert_eq!(run(start, verdicts), expected, "{start:?} {verdicts:?}");
        }
    }

    #[test]
    fn each_situation_has_its_interval() {
        let seconds = Duration::from_secs;
        let timing = Timing {
            interval: seconds(1),
            unhealthy_interval: seconds(2),
            unhealthy_edge_interval: seconds(3),
            healthy_edge_interval: seconds(4),
            no_traffic_interval: seconds(5),
            no_traffic_healthy_interval: seconds(6),
            ..timing()
        };
        let wait = |health, change, used| timing.wait(health, change, (used, 0.5)).as_secs();
        assert_eq!(wait(Health::Healthy, Change::None, true), 1);
        assert_eq!(wait(Health::Unhealthy, Change::None, true), 2);
        assert_eq!(wait(Health::Unhealthy, Change::Edge, true), 3);
        assert_eq!(wait(Health::Degraded, Change::Edge, true), 4);
        assert_eq!(wait(Health::Unhealthy, Change::Edge, false), 5);
        assert_eq!(wait(Health::Healthy, Change::None, false), 6);
        let jitter =
            Timing { interval_jitter: seconds(2), interval_jitter_percent: 100, ..timing.clone() };
        let wait = jitter.wait(Health::Healthy, Change::None, (true, 0.5));
        assert_eq!(wait, Duration::from_millis(2_500));
    }
}
