//! Which exchanges an access log takes: `config.accesslog.v3.AccessLogFilter`.

use super::operator::{Context, elapsed_ms};
use crate::exchange::ResponseFlags;

/// A compiled filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Of the response.
    StatusCode(Comparison),
    /// Of the whole exchange, in milliseconds.
    Duration(Comparison),
    /// Each of these takes it.
    All(Box<[Filter]>),
    /// One of these takes it.
    Any(Box<[Filter]>),
    /// At least one flag is set.
    AnyFlag,
    /// At least one of these flags is set.
    FlagOf(ResponseFlags),
}

/// A number compared with a constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    pub(super) op: Op,
    pub(super) with: u32,
}

/// How they are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Op {
    Equal,
    AtLeast,
    AtMost,
    NotEqual,
}

impl Filter {
    /// Whether the exchange is logged.
    pub fn takes(&self, cx: &Context<'_>) -> bool {
        let stream = cx.stream;
        match self {
            Self::StatusCode(comparison) => {
                comparison.holds(stream.status.map_or(0, |s| s.as_u16().into()))
            }
            Self::Duration(comparison) => comparison.holds(elapsed_ms(stream, cx.now)),
            Self::All(filters) => filters.iter().all(|filter| filter.takes(cx)),
            Self::Any(filters) => filters.iter().any(|filter| filter.takes(cx)),
            Self::AnyFlag => !stream.flags.is_empty(),
            Self::FlagOf(wanted) => {
                ResponseFlags::ALL.iter().any(|(f, _)| wanted.has(*f) && stream.flags.has(*f))
            }
        }
    }
}

impl Comparison {
    fn holds(self, value: u64) -> bool {
        let with = u64::from(self.with);
        match self.op {
            Op::Equal => value == with,
            Op::AtLeast => value >= with,
            Op::AtMost => value <= with,
            Op::NotEqual => value != with,
        }
    }
}
