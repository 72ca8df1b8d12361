//! Both protocol variants against a model server, for thousands of seeded random steps.
//!
//! The network loses streams, the server changes its mind, some resources are bad, some are mortal,
//! and control takes its time. Once everything settles, control must hold what the server has. A
//! failure prints its seed.

mod delta_server;
mod sotw_server;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prost_types::Any;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::delta::Delta;
use super::machine::{Machine, Offer};
use super::sotw::Sotw;
use super::types::{Rejection, ResourceType, Verdict};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const TTL_SECONDS: i64 = 10;

/// What the server would have every client know.
#[derive(Default)]
struct World {
    version: u64,
    resources: BTreeMap<&'static str, Item>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    version: u64,
    good: bool,
    mortal: bool,
}

impl World {
    fn change(&mut self, rng: &mut SmallRng, mortals: bool) {
        self.version += 1;
        let name = NAMES[rng.random_range(0..NAMES.len())];
        if rng.random_bool(0.3) {
            self.resources.remove(name);
        } else {
            let (good, mortal) = (rng.random_bool(0.7), mortals && rng.random_bool(0.5));
            self.resources.insert(name, Item { version: self.version, good, mortal });
        }
    }
}

fn body(ty: ResourceType, name: &str, item: Item) -> Any {
    let value = format!("{name} {} {}", item.version, item.good).into_bytes();
    Any { type_url: ty.type_url().into(), value }
}

fn ttl(item: Item) -> Option<prost_types::Duration> {
    item.mortal.then_some(prost_types::Duration { seconds: TTL_SECONDS, nanos: 0 })
}

/// The server's side of one stream and type. It checks what the client owes it.
trait Server<M: Machine>: Sized {
    fn new(ty: ResourceType) -> Self;
    fn request(&mut self, world: &World, request: M::Request) -> Option<M::Response>;
    /// What changed since the last response, if anything.
    fn push(&mut self, world: &World) -> Option<M::Response>;
    fn heartbeat(&mut self, world: &World) -> Option<M::Response>;
    /// Versions the first request claims, by name.
    fn claims(request: &M::Request) -> Option<BTreeMap<String, u64>>;
    fn nonce(request: &M::Request) -> &str;
    /// Whether the server tells a client that a name does not exist.
    fn tells_absence(ty: ResourceType) -> bool;
}

/// Control: what is in service, what is wanted, and what it is looking at.
#[derive(Default)]
struct Control {
    store: BTreeMap<String, u64>,
    wanted: BTreeSet<&'static str>,
    looking: Option<Offer>,
}

impl Control {
    fn apply(&mut self, ty: ResourceType, offer: &Offer) -> Verdict {
        let mut present: BTreeSet<String> = offer.kept.iter().cloned().collect();
        let mut rejected = Vec::new();
        for resource in &offer.resources {
            let text = String::from_utf8(resource.body.value.clone()).unwrap();
            let [name, version, good] = text.split(' ').collect::<Vec<_>>()[..] else { panic!() };
            present.insert(name.to_owned());
            if good == "false" {
                rejected.push(Rejection { name: name.to_owned(), error: "bad".into() });
            } else if ty.wildcard() || self.wanted.contains(name) {
                self.store.insert(name.to_owned(), version.parse().unwrap());
            }
        }
        if offer.full {
            self.store.retain(|name, _| present.contains(name));
        }
        for name in &offer.removed {
            self.store.remove(name);
        }
        Verdict { rejected }
    }
}

struct Simulation<M: Machine, S> {
    ty: ResourceType,
    client: M,
    control: Control,
    world: World,
    server: Option<S>,
    up: VecDeque<M::Request>,
    down: VecDeque<M::Response>,
    asked: bool,
    received: VecDeque<String>,
    now: Instant,
}

impl<M: Machine, S: Server<M>> Simulation<M, S> {
    fn new(ty: ResourceType) -> Self {
        let mut client = M::new(ty);
        if ty.wildcard() {
            client.subscribe_all();
        }
        Self {
            ty,
            client,
            control: Control::default(),
            world: World::default(),
            server: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            asked: false,
            received: VecDeque::new(),
            now: Instant::now(),
        }
    }

    fn connect(&mut self) {
        if self.server.is_none() {
            self.server = Some(S::new(self.ty));
            self.client.opened();
            self.asked = false;
        }
    }

    fn disconnect(&mut self) {
        if self.server.take().is_some() {
            self.client.closed();
            self.up.clear();
            self.down.clear();
            self.received.clear();
        }
    }

    fn send(&mut self) -> bool {
        let answers = self.client.has_answer();
        assert_eq!(self.client.has_request(), self.client.has_request());
        let Some(request) = self.client.take_request() else { return false };
        if answers {
            let due = self.received.pop_front();
            assert_eq!(due.as_deref(), Some(S::nonce(&request)), "answered once, in order");
        }
        let first = !std::mem::replace(&mut self.asked, true);
        for (name, version) in S::claims(&request).filter(|_| first).into_iter().flatten() {
            let held = self.control.store.get(&name);
            assert_eq!(held, Some(&version), "{name} is claimed as held");
        }
        self.up.push_back(request);
        true
    }

    fn serve(&mut self) -> bool {
        let (Some(server), Some(request)) = (&mut self.server, self.up.pop_front()) else {
            return false;
        };
        self.down.extend(server.request(&self.world, request));
        true
    }

    fn deliver(&mut self) -> bool {
        let Some(response) = self.down.pop_front().filter(|_| !self.client.is_full()) else {
            return false;
        };
        self.received.push_back(M::head(&response).nonce.to_owned());
        self.client.receive(response);
        true
    }

    fn look(&mut self) -> bool {
        if self.control.looking.is_some() {
            return false;
        }
        let had = self.client.has_offer(self.now);
        self.control.looking = self.client.take_offer(self.now);
        had
    }

    fn decide(&mut self) -> bool {
        let Some(offer) = self.control.looking.take() else { return false };
        let verdict = self.control.apply(self.ty, &offer);
        self.client.decide(offer.seq, &verdict, self.now);
        true
    }

    fn push(&mut self) -> bool {
        let response = self.server.as_mut().and_then(|server| server.push(&self.world));
        let pushed = response.is_some();
        self.down.extend(response);
        pushed
    }

    fn heartbeat(&mut self) {
        let response = self.server.as_mut().and_then(|server| server.heartbeat(&self.world));
        self.down.extend(response);
    }

    fn resubscribe(&mut self, rng: &mut SmallRng) {
        let name = NAMES[rng.random_range(0..NAMES.len())];
        if self.control.wanted.remove(name) {
            self.client.unsubscribe(name);
            if !self.ty.wildcard() {
                self.control.store.remove(name);
            }
        } else if !self.ty.wildcard() {
            self.control.wanted.insert(name);
            self.client.subscribe(&Arc::from(name));
        }
    }

    fn step(&mut self, rng: &mut SmallRng, mortals: bool) {
        match rng.random_range(0..100) {
            0..20 => drop(self.send()),
            20..40 => drop(self.serve()),
            40..60 => drop(self.deliver()),
            60..70 => drop(self.look()),
            70..80 => drop(self.decide()),
            80..86 => self.resubscribe(rng),
            86..91 => self.world.change(rng, mortals),
            91..95 => drop(self.push()),
            95 => self.disconnect(),
            96..98 => self.connect(),
            _ => {
                self.heartbeat();
                self.now += Duration::from_millis(rng.random_range(0..6000));
            }
        }
    }

    /// Lets everything under way arrive. Time stands still.
    fn settle(&mut self) {
        self.connect();
        for _ in 0..100_000 {
            let moved = [
                self.send(),
                self.serve(),
                self.deliver(),
                self.look(),
                self.decide(),
                self.push(),
            ];
            if !moved.contains(&true) {
                assert!(self.received.is_empty(), "every response was answered");
                return;
            }
        }
        panic!("it never settles");
    }

    fn check(&self) {
        let wanted = |name: &str| self.ty.wildcard() || self.control.wanted.contains(name);
        for name in NAMES.into_iter().filter(|name| wanted(name)) {
            let held = self.control.store.get(name).copied();
            match self.world.resources.get(name) {
                Some(item) if item.good => assert_eq!(held, Some(item.version), "{name}"),
                Some(item) => assert!(held.is_none_or(|held| held < item.version), "{name}"),
                None if S::tells_absence(self.ty) => assert_eq!(held, None, "{name}"),
                None => {}
            }
        }
        assert!(self.control.store.keys().all(|name| wanted(name)));
    }
}

fn simulate<M: Machine, S: Server<M>>(ty: ResourceType) {
    for seed in 0..60 {
        eprintln!("{ty} {:?} seed {seed}", M::VARIANT);
        let mut rng = SmallRng::seed_from_u64(seed);
        let mortals = seed % 2 == 1;
        let mut simulation = Simulation::<M, S>::new(ty);
        for _ in 0..10 {
            for _ in 0..400 {
                simulation.step(&mut rng, mortals);
            }
            if mortals {
                // What ended its life on a living stream comes back with the next one.
                simulation.settle();
                simulation.disconnect();
                simulation.now += Duration::from_secs(rng.random_range(0..20));
                simulation.look();
                simulation.decide();
            }
            simulation.settle();
            simulation.check();
        }
    }
}

#[test]
fn sotw_wildcard_settles_on_what_the_server_has() {
    simulate::<Sotw, sotw_server::SotwServer>(ResourceType::Cluster);
}

#[test]
fn sotw_by_name_settles_on_what_the_server_has() {
    simulate::<Sotw, sotw_server::SotwServer>(ResourceType::Endpoints);
}

#[test]
fn delta_wildcard_settles_on_what_the_server_has() {
    simulate::<Delta, delta_server::DeltaServer>(ResourceType::Cluster);
}

#[test]
fn delta_by_name_settles_on_what_the_server_has() {
    simulate::<Delta, delta_server::DeltaServer>(ResourceType::Endpoints);
}
