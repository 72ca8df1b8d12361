//! `Accept-Encoding`: which codings a client takes, and how gladly (RFC 9110 section 12.5.3).
//!
//! An item that cannot be read is passed over, and of two for the same coding the first counts: whoever
//! writes nonsense gets the plain form rather than an error.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use super::Coding;

/// A weight in thousandths.
type Weight = u16;

/// What a request says of each coding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weights {
    /// By [`Coding::ALL`].
    codings: [Option<Weight>; Coding::ALL.len()],
    identity: Option<Weight>,
    any: Option<Weight>,
}

/// In which form to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// In this coding.
    Coded(Coding),
    /// As it is.
    Identity,
    /// The client takes none of what there is, the plain form included: an answer would be 406, if not the
    /// plain form all the same (RFC 9110 section 12.4.1).
    NotAcceptable,
}

impl Weights {
    /// What the fields of a request say. Without any, everything is acceptable and nothing asked for,
    /// which is said of an empty field too: both lead to the plain form.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut weights = Self::default();
        for value in headers.get_all(ACCEPT_ENCODING) {
            value.as_bytes().split(|byte| *byte == b',').for_each(|item| weights.add(item));
        }
        weights
    }

    fn add(&mut self, item: &[u8]) {
        let Some((name, weight)) = std::str::from_utf8(item).ok().and_then(weighted) else {
            return;
        };
        let place = match name {
            "*" => &mut self.any,
            _ if name.eq_ignore_ascii_case("identity") => &mut self.identity,
            _ => match Coding::parse(name) {
                Some(coding) => &mut self.codings[index(coding)],
                None => return,
            },
        };
        place.get_or_insert(weight);
    }

    /// How gladly a coding is taken; 0 is not at all.
    fn weight(&self, coding: Coding) -> Weight {
        self.codings[index(coding)].or(self.any).unwrap_or(0)
    }

    /// The form for this client among those that the server can make, which it lists best first. The
    /// plain form is taken only if nothing else is, or if the client likes it better and says so.
    pub fn choose(&self, server_preference: &[Coding]) -> Choice {
        let mut best: Option<(Weight, Coding)> = None;
        for coding in server_preference {
            let weight = self.weight(*coding);
            if weight > best.map_or(0, |(weight, _)| weight) {
                best = Some((weight, *coding));
            }
        }
        match (best, self.identity.or(self.any.filter(|any| *any == 0))) {
            (Some((weight, _)), Some(identity)) if self.identity.is_some() && identity > weight => {
                Choice::Identity
            }
            (Some((_, coding)), _) => Choice::Coded(coding),
            (None, Some(0)) => Choice::NotAcceptable,
            (None, _) => Choice::Identity,
        }
    }
}

fn index(coding: Coding) -> usize {
    coding as usize
}

/// The name and the weight of an item.
fn weighted(item: &str) -> Option<(&str, Weight)> {
    const SPACE: [char; 2] = [' ', '\t'];
    let Some((name, weight)) = item.split_once(';') else {
        return Some((item.trim_matches(SPACE), 1_000));
    };
    let weight = weight.trim_matches(SPACE);
    let weight = weight.strip_prefix("q=").or(weight.strip_prefix("Q="))?;
    Some((name.trim_matches(SPACE), thousandths(weight)?))
}

/// A `qvalue` (RFC 9110 section 12.4.2): 0 to 1 with up to three digits after the point.
fn thousandths(text: &str) -> Option<Weight> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    if digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole = match whole {
        "0" => 0,
        "1" => 1_000,
        _ => return None,
    };
    let thousandth = |(n, digit): (usize, u8)| Weight::from(digit - b'0') * [100, 10, 1][n];
    let part: Weight = digits.bytes().enumerate().map(thousandth).sum();
    Some(whole + part).filter(|weight| *weight <= 1_000)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn weights(lines: &[&str]) -> Weights {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        Weights::of(&headers)
    }

    #[track_caller]
    fn choice(line: &str) -> Choice {
        weights(&[line]).choose(&[Coding::Brotli, Coding::Gzip])
    }

    const GZIP: Choice = Choice::Coded(Coding::Gzip);
    const BROTLI: Choice = Choice::Coded(Coding::Brotli);

    #[test]
    fn the_highest_weight_wins_and_the_server_breaks_ties() {
        for (line, expected) in [
            ("gzip", GZIP),
            ("gzip, br", BROTLI),
            ("gzip, deflate, br, zstd", BROTLI),
            ("br;q=0.5, gzip;q=0.501", GZIP),
            ("br;q=0.5, gzip;q=0.5", BROTLI),
            ("GZIP ; Q=1.000", GZIP),
            ("\tx-gzip\t;\tq=0.001", GZIP),
            ("*", BROTLI),
            ("br;q=0, *", GZIP),
            ("*;q=0.1, gzip", GZIP),
            ("deflate, zstd", Choice::Identity),
        ] {
            assert_eq!(choice(line), expected, "{line}");
        }
        assert_eq!(weights(&["gzip"]).choose(&[]), Choice::Identity);
        assert_eq!(weights(&["br;q=0.1", "gzip"]).choose(&[Coding::Brotli, Coding::Gzip]), GZIP);
    }

    #[test]
    fn the_plain_form_is_for_those_who_want_nothing_else() {
        assert_eq!(weights(&[]).choose(&[Coding::Gzip]), Choice::Identity);
        for (line, expected) in [
            ("", Choice::Identity),
            (" , ,", Choice::Identity),
            ("identity", Choice::Identity),
            ("identity, gzip", GZIP),
            ("identity;q=0.5, gzip;q=0.4", Choice::Identity),
            ("identity;q=0.5, gzip;q=0.5", GZIP),
            ("identity;q=0.5, *;q=0.4", Choice::Identity),
            ("gzip;q=0", Choice::Identity),
            ("gzip;q=0.2, *;q=0", GZIP),
            ("identity;q=0, gzip", GZIP),
        ] {
            assert_eq!(choice(line), expected, "{line}");
        }
    }

    #[test]
    fn a_client_can_refuse_everything() {
        for line in ["identity;q=0", "*;q=0", "identity;q=0.000, gzip;q=0", "*;q=0.0, deflate"] {
            assert_eq!(choice(line), Choice::NotAcceptable, "{line}");
        }
        assert_eq!(choice("*;q=0, identity"), Choice::Identity);
        assert_eq!(choice("*;q=0, identity;q=0.1"), Choice::Identity);
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        for line in [
            "gzip;q",
            "gzip;q=",
            "gzip;q=1.001",
            "gzip;q=0.1234",
            "gzip;q=-1",
            "gzip;q=1e0",
            "gzip;q=.5",
            "gzip;q=2",
            "gzip;q=1;q=1",
            "gzip;level=1",
            "gzip;level=1;q=1",
            "gz ip",
            "gzip br",
            ";q=1",
            "g\u{fc}zip",
        ] {
            assert_eq!(choice(line), Choice::Identity, "{line}");
            assert_eq!(choice(&format!("{line}, br;q=0.1")), BROTLI, "{line}");
        }
        assert_eq!(choice("gzip;q=0, gzip"), Choice::Identity, "the first counts");
        assert_eq!(choice("gzip;q=1."), GZIP);
    }
}
