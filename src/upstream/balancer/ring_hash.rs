//! `RING_HASH`: hosts have points on a ring, by weight; a hash belongs to the next point.

use super::hashing::HashFunction;

/// Points in ascending order, each with the index of its host.
pub(super) struct Ring(Box<[(u64, u32)]>);

impl Ring {
    /// At least `minimum` points, so many that the lightest host has a whole number of them, but no
    /// more than `maximum`.
    pub(super) fn build(
        keys: &[String],
        shares: &[f64],
        (minimum, maximum): (u64, u64),
        function: HashFunction,
    ) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "sizes are at most 8,388,608")]
        let (minimum, maximum) = (minimum as f64, maximum as f64);
        let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
        let scale = ((least * minimum).ceil() / least).min(maximum);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 2^23")]
        let mut points = Vec::with_capacity(scale.ceil() as usize);
        let (mut target, mut made) = (0.0, 0.0);
        let mut text = String::new();
        for ((key, share), host) in keys.iter().zip(shares).zip(0..) {
            target += scale * share;
            text.clear();
            text.push_str(key);
            text.push('_');
            let prefix = text.len();
            let mut number = itoa::Buffer::new();
            let mut nth = 0_u64;
            while made < target {
                text.truncate(prefix);
                text.push_str(number.format(nth));
                points.push((function.hash(text.as_bytes()), host));
                nth += 1;
                made += 1.0;
            }
        }
        points.sort_unstable();
        Self(points.into())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The host of the first point at or after `hash`. O(log n).
    pub(super) fn choose(&self, hash: u64) -> usize {
        let next = self.0.partition_point(|(point, _)| *point < hash);
        let (_, host) = self.0.get(next).or_else(|| self.0.first()).copied().unwrap_or_default();
        host as usize
    }
}

/// Not every point: there are thousands.
impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({})", self.0.len())
    }
}
