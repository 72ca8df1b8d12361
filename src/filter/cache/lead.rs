//! One request of many for the same thing asks the origin; the others wait for what comes.

use std::time::Duration;

use super::answer::{Asked, from_flight, from_stored, said};
use super::{Caching, is_own_way};
use crate::cache::{Key, Lead, Leader, Outcome, Use};
use crate::exchange::{Request, Response};

/// A head that takes longer lets those who wait for it ask themselves.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Fetches that one request waits for, if each ends without a word.
const MOST_WAITS: usize = 8;

/// How a request goes on that cannot be answered from the store.
pub(super) enum Turn {
    /// It asks the origin.
    Fetch(Leader, Request),
    /// Another did.
    Answered(Response),
}

impl Caching {
    pub(super) async fn turn(
        &self,
        key: &Key,
        asked: &Asked,
        request: Request,
        status: &str,
    ) -> Turn {
        if is_own_way(asked) {
            return Turn::Fetch(self.store.alone(), request);
        }
        for _ in 0..MOST_WAITS {
            let mut follower = match self.store.lead(key, &asked.headers) {
                Lead::Fetch(leader) => return Turn::Fetch(leader, request),
                Lead::Follow(follower) => follower,
            };
            match tokio::time::timeout(LONGEST_WAIT, follower.outcome()).await {
                Ok(Outcome::Comes(entry)) if entry.variant.matches(&asked.headers) => {
                    if self.use_of(&entry, &asked.headers) != Use::Fresh {
                        break;
                    }
                    self.store.stats.coalesced.inc();
                    let status = format!("{status}; collapsed");
                    let stream = request.stream;
                    return Turn::Answered(from_flight(&entry, follower, &status, stream));
                }
                Ok(Outcome::Here(entry)) if entry.variant.matches(&asked.headers) => {
                    if self.use_of(&entry, &asked.headers) != Use::Fresh {
                        break;
                    }
                    self.store.stats.coalesced.inc();
                    let (entry, form) = self.formed(key, entry, &asked.headers).await;
                    let by = (&asked.method, &asked.headers);
                    let status = format!("{status}; collapsed");
                    return Turn::Answered(from_stored(
                        &entry,
                        form,
                        by,
                        said(&status),
                        request.stream,
                    ));
                }
                Ok(Outcome::Instead(entry)) if self.outlasts(&entry, asked) => {
                    self.store.stats.stale_if_error.inc();
                    let status = "fwd=stale; collapsed; detail=stale-if-error";
                    let (entry, form) = self.formed(key, entry, &asked.headers).await;
                    let by = (&asked.method, &asked.headers);
                    return Turn::Answered(from_stored(
                        &entry,
                        form,
                        by,
                        said(status),
                        request.stream,
                    ));
                }
                // For others: whoever leads for this one is another.
                Ok(Outcome::Comes(_) | Outcome::Here(_) | Outcome::Gone) => {}
                Ok(Outcome::Instead(_) | Outcome::Refused) | Err(_) => break,
            }
        }
        Turn::Fetch(self.store.alone(), request)
    }
}
