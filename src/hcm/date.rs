//! The time of day as `Date` says it (RFC 9110 section 6.6.1), written once a second on each worker.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is written, and the second since the epoch it is of.
type Written = (u64, String);

thread_local! {
    static WRITTEN: RefCell<Written> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Uses the text of now.
pub(super) fn with<R>(use_it: impl FnOnce(&[u8]) -> R) -> R {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    WRITTEN.with_borrow_mut(|(of, text)| {
        if *of != second {
            (*of, *text) = (second, httpdate::fmt_http_date(now));
        }
        use_it(text.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_time_of_day() {
        let text = with(|date| String::from_utf8(date.to_vec()).unwrap());
        let told = httpdate::parse_http_date(&text).unwrap();
        assert!(told.elapsed().unwrap().as_secs() < 5, "{text}");
        with(|again| assert_eq!(again.len(), text.len()));
    }
}
