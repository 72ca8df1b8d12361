//! Wall-clock times as text: ISO 8601, or a format in the manner of `strftime`. Always UTC.

use std::time::{Duration, SystemTime};

use crate::config::Fault;

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeFormat(Box<[Piece]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A number of the date or the clock, padded to a width.
    Number(Number, u8, u8),
    /// So many digits of the second's fraction.
    Fraction(usize),
    /// Seconds since 1970.
    UnixSeconds,
    WeekdayName,
    MonthName,
    HalfOfDay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Year,
    YearOfCentury,
    Month,
    Day,
    DayOfYear,
    Hour,
    HourOfHalf,
    Minute,
    Second,
}

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Default for TimeFormat {
    /// `2026-11-23T17:31:30.165Z`
    fn default() -> Self {
        Self::compile("%Y-%m-%dT%H:%M:%S.%3fZ").expect("every conversion of it is known")
    }
}

impl TimeFormat {
    /// Reads a format: `%Y %y %m %d %e %j %H %I %M %S %p %a %b %F %T %D %z %Z %s %%`, `%f` for
    /// nanoseconds and `%1f` to `%9f` for so many digits of the second's fraction.
    ///
    /// # Errors
    /// [`Fault::Invalid`] with the conversion that is not known.
    pub fn compile(format: &str) -> Result<Self, Fault> {
        let mut pieces = Vec::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                push_char(&mut pieces, c);
                continue;
            }
            let conversion = chars.next();
            match conversion {
                Some('%') => push_char(&mut pieces, '%'),
                Some(digits @ '1'..='9') if chars.as_str().starts_with('f') => {
                    chars.next();
                    pieces.push(Piece::Fraction(usize::from(digits as u8 - b'0')));
                }
                Some('z') => "+0000".chars().for_each(|c| push_char(&mut pieces, c)),
                Some('Z') => "UTC".chars().for_each(|c| push_char(&mut pieces, c)),
                Some('F') => pieces.extend(Self::compile("%Y-%m-%d")?.0),
                Some('T') => pieces.extend(Self::compile("%H:%M:%S")?.0),
                Some('D') => pieces.extend(Self::compile("%m/%d/%y")?.0),
                Some(c) => pieces.push(Piece::conversion(c).ok_or_else(|| unknown(conversion))?),
                None => return Err(unknown(None)),
            }
        }
        Ok(Self(pieces.into()))
    }

    /// Appends `time`; a time before 1970 is written as its beginning.
    pub fn write(&self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let civil = Civil::of(since.as_secs());
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Number(number, width, pad) => {
                    push_padded(out, civil.number(*number), usize::from(*width), *pad);
                }
                Piece::Fraction(digits) => {
                    let nanos = format_nanos(since.subsec_nanos());
                    out.extend_from_slice(&nanos[..*digits]);
                }
                Piece::UnixSeconds => push_padded(out, since.as_secs(), 1, b'0'),
                Piece::WeekdayName => {
                    out.extend_from_slice(WEEKDAYS[civil.weekday].as_bytes());
                }
                Piece::MonthName => {
                    out.extend_from_slice(MONTHS[civil.month_index].as_bytes());
                }
                Piece::HalfOfDay => {
                    out.extend_from_slice(if civil.hour < 12 { b"AM" } else { b"PM" });
                }
            }
        }
    }
}

impl Piece {
    fn conversion(c: char) -> Option<Self> {
        let number = |number, width| Self::Number(number, width, b'0');
        Some(match c {
            'Y' => number(Number::Year, 4),
            'y' => number(Number::YearOfCentury, 2),
            'm' => number(Number::Month, 2),
            'd' => number(Number::Day, 2),
            'e' => Self::Number(Number::Day, 2, b' '),
            'j' => number(Number::DayOfYear, 3),
            'H' => number(Number::Hour, 2),
            'I' => number(Number::HourOfHalf, 2),
            'M' => number(Number::Minute, 2),
            'S' => number(Number::Second, 2),
            'f' => Self::Fraction(9),
            's' => Self::UnixSeconds,
            'a' => Self::WeekdayName,
            'b' => Self::MonthName,
            'p' => Self::HalfOfDay,
            _ => return None,
        })
    }
}

fn unknown(conversion: Option<char>) -> Fault {
    let conversion: String = std::iter::once('%').chain(conversion).collect();
    Fault::invalid(
        conversion,
        "not a known conversion of START_TIME; use %Y %y %m %d %e %j %H %I %M %S %p %a %b %F %T \
         %D %z %Z %s %f %1f..%9f %%",
    )
}

fn push_char(pieces: &mut Vec<Piece>, c: char) {
    match pieces.last_mut() {
        Some(Piece::Text(text)) => text.push(c),
        _ => pieces.push(Piece::Text(c.to_string())),
    }
}

fn push_padded(out: &mut Vec<u8>, number: u64, width: usize, pad: u8) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number).as_bytes();
    out.extend(std::iter::repeat_n(pad, width.saturating_sub(digits.len())));
    out.extend_from_slice(digits);
}

fn format_nanos(mut nanos: u32) -> [u8; 9] {
    let mut digits = [b'0'; 9];
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(nanos % 10).unwrap_or(0);
        nanos /= 10;
    }
    digits
}

/// A moment in the proleptic Gregorian calendar, UTC.
struct Civil {
    year: u64,
    month_index: usize,
    day: u64,
    day_of_year: u64,
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    fn of(unix_seconds: u64) -> Self {
        let (days, of_day) = (unix_seconds / 86_400, unix_seconds % 86_400);
        // Years are counted from 1 March of year 0, so that a leap day is the last day of its year;
        // 719,468 days lie between that and 1970. Eras of 400 years all have 146,097 days.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let from_march = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * from_march + 2) / 153;
        let day = from_march - (153 * month_from_march + 2) / 5 + 1;
        let month_index = (month_from_march + 2) % 12;
        let year = era * 400 + year_of_era + u64::from(month_index < 2);
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        // 306 days lie between 1 March and the end of the year.
        let day_of_year = match month_index < 2 {
            true => from_march - 306 + 1,
            false => from_march + 59 + u64::from(leap) + 1,
        };
        Self {
            year,
            month_index: usize::try_from(month_index).unwrap_or(0),
            day,
            day_of_year,
            weekday: usize::try_from(days % 7).unwrap_or(0),
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }

    fn number(&self, number: Number) -> u64 {
        match number {
            Number::Year => self.year,
            Number::YearOfCentury => self.year % 100,
            Number::Month => self.month_index as u64 + 1,
            Number::Day => self.day,
            Number::DayOfYear => self.day_of_year,
            Number::Hour => self.hour,
            Number::HourOfHalf => (self.hour + 11) % 12 + 1,
            Number::Minute => self.minute,
            Number::Second => self.second,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: &str, unix_ns: u64) -> String {
        let mut out = Vec::new();
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_ns);
        TimeFormat::compile(format).unwrap().write(time, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn conversions_are_envoys() {
        let at = 1_795_455_090_165_867_123;
        let cases = [
            ("%Y/%m/%dT%H:%M:%S%z %Z", "2026/11/23T17:31:30+0000 UTC"),
            ("%3f %6f %9f %f %1f", "165 165867 165867123 165867123 1"),
            ("%s%3f %s", "1795455090165 1795455090"),
            ("%j %e %b %a %p %I %y %%", "327 23 Nov Mon PM 05 26 %"),
            ("%F %T %D", "2026-11-23 17:31:30 11/23/26"),
        ];
        for (format, text) in cases {
            assert_eq!(written(format, at), text, "{format}");
        }
    }

    #[test]
    fn calendar_keeps_leap_years() {
        let day = 86_400_000_000_000;
        let cases = [
            (0, "1970-01-01 001 Thu"),
            (58, "1970-02-28 059 Sat"),
            (59, "1970-03-01 060 Sun"),
            (789, "1972-02-29 060 Tue"),
            (1_095, "1972-12-31 366 Sun"),
            (11_016, "2000-02-29 060 Tue"),
            (47_540, "2100-02-28 059 Sun"),
            (47_541, "2100-03-01 060 Mon"),
        ];
        for (days, text) in cases {
            assert_eq!(written("%F %j %a", days * day), text);
        }
    }

    #[test]
    fn unknown_conversions_are_named() {
        for (format, named) in [("%Q", "%Q:"), ("x%", "%:"), ("%0f", "%0:"), ("%3x", "%3:")] {
            let fault = TimeFormat::compile(format).unwrap_err().to_string();
            assert!(fault.starts_with(named), "{fault}");
        }
    }
}
