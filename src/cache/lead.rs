//! Of all that ask for the same thing at a time one fetches it; the others follow.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::flight::{EndGuard, Flight, Follower, Outcome};
use super::key::Key;
use super::stats::CacheStats;
use super::store::{Store, Ticket};

/// How a request goes on that nothing is stored for.
#[derive(Debug)]
pub enum Lead {
    /// It fetches the response, for itself and whoever comes meanwhile.
    Fetch(Leader),
    /// Another does.
    Follow(Follower),
}

/// A fetch, which others may follow. When it is dropped without a word, one of them becomes the next.
#[derive(Debug)]
pub struct Leader {
    /// What they follow.
    pub flight: Arc<Flight>,
    /// The fill.
    pub ticket: Ticket,
    _place: Option<FlightPlace>,
    _end: EndGuard,
    _count: Fetching,
}

/// Counts a fetch while it is under way.
#[derive(Debug)]
struct Fetching(Arc<CacheStats>);

impl Fetching {
    fn new(stats: &Arc<CacheStats>) -> Self {
        stats.fetching.inc();
        Self(Arc::clone(stats))
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.fetching.dec();
    }
}

/// With their fills' beginnings.
pub(super) type Flights = Mutex<HashMap<Key, SmallVec<[(u64, Arc<Flight>); 1]>>>;

#[derive(Debug)]
struct FlightPlace {
    key: Key,
    flight: Arc<Flight>,
    flights: Arc<Flights>,
}

impl Drop for FlightPlace {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        if let Some(of_key) = flights.get_mut(&self.key) {
            of_key.retain(|(_, flight)| !Arc::ptr_eq(flight, &self.flight));
            if of_key.is_empty() {
                flights.remove(&self.key);
            }
        }
    }
}

impl Store {
    /// A request that nothing is stored for fetches the response, unless another does already that it may
    /// follow. One whose response is known to be of another variant is not followed, nor one that began
    /// before a purge of what it brings, or that nothing has come of for long.
    pub fn lead(&self, key: &Key, request: &HeaderMap) -> Lead {
        let mut flights = self.flights.lock();
        let of_key = flights.entry(key.clone()).or_default();
        for (begun, flight) in of_key.iter() {
            let fits = match flight.outcome() {
                None => self.outlived(key, None, *begun),
                Some(Outcome::Comes(entry) | Outcome::Here(entry)) => {
                    entry.variant.matches(request) && self.outlived(key, Some(&entry), *begun)
                }
                Some(Outcome::Instead(_) | Outcome::Refused | Outcome::Gone) => false,
            };
            if fits
                && !flight.is_silent()
                && let Some(follower) = flight.follow()
            {
                return Lead::Follow(follower);
            }
        }
        let mut leader = self.alone();
        of_key.push((leader.ticket.begun, Arc::clone(&leader.flight)));
        drop(flights);
        leader._place = Some(FlightPlace {
            key: key.clone(),
            flight: Arc::clone(&leader.flight),
            flights: Arc::clone(&self.flights),
        });
        Lead::Fetch(leader)
    }

    /// A fetch that nobody follows.
    pub fn alone(&self) -> Leader {
        let flight = Arc::new(Flight::default());
        let end = EndGuard(Arc::clone(&flight));
        let _count = Fetching::new(&self.stats);
        Leader { flight, ticket: self.begin(), _place: None, _end: end, _count }
    }
}
