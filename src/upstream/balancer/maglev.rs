//! `MAGLEV`: a table whose places hosts fill in turn, each in an order of its own, by weight
//! ("Maglev: A Fast and Reliable Software Network Load Balancer", section 3.4).

use xxhash_rust::xxh64::xxh64;

/// The index of a host for each place.
pub(super) struct Maglev(Box<[u32]>);

/// One host while the table is filled.
struct Filler {
    offset: u64,
    skip: u64,
    share: f64,
    /// It takes a place when its share times the turn has come so far.
    due: f64,
    tried: u64,
}

const FREE: u32 = u32::MAX;

impl Maglev {
    /// `size` is a prime.
    pub(super) fn build(keys: &[String], shares: &[f64], size: u32) -> Self {
        let length = u64::from(size.max(2));
        let mut fillers: Vec<_> = keys
            .iter()
            .zip(shares)
            .map(|(key, share)| Filler {
                offset: xxh64(key.as_bytes(), 0) % length,
                skip: xxh64(key.as_bytes(), 1) % (length - 1) + 1,
                share: *share,
                due: 0.0,
                tried: 0,
            })
            .collect();
        let most = shares.iter().copied().fold(0.0, f64::max);
        let mut table = vec![FREE; size.max(2) as usize];
        let mut left = table.len();
        let mut turn = 1.0;
        while left > 0 {
            for (filler, host) in fillers.iter_mut().zip(0..) {
                if left == 0 {
                    break;
                }
                if turn * filler.share < filler.due {
                    continue;
                }
                filler.due += most;
                loop {
                    let place = (filler.offset + filler.skip * filler.tried) % length;
                    filler.tried += 1;
                    let place = usize::try_from(place).unwrap_or_default();
                    if table[place] == FREE {
                        table[place] = host;
                        break;
                    }
                }
                left -= 1;
            }
            turn += 1.0;
        }
        Self(table.into())
    }

    /// The host of a hash. O(1).
    pub(super) fn choose(&self, hash: u64) -> usize {
        let place = hash % self.0.len() as u64;
        usize::try_from(place).ok().and_then(|place| self.0.get(place)).map_or(0, |h| *h as usize)
    }
}

/// Not every place: there are thousands.
impl std::fmt::Debug for Maglev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Maglev({})", self.0.len())
    }
}
