//! Services and their instances, as metrics show them: read when somebody asks, and never more of them
//! than a reader can bear.
//!
//! Whoever owns clusters is [`Services`]. A reading keeps apart 100 instances of a service and 10,000 of
//! all; the others are one, [`OTHER`], which has their sum. Of a service without traffic only the health of its
//! instances is worth telling.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::durations::{Durations, Reading};

/// The name of what is not kept apart.
pub const OTHER: &str = "_other";

/// Instances of one service that are kept apart.
const MOST_OF_A_SERVICE: usize = 100;
/// Instances of all services that are kept apart.
const MOST: usize = 10_000;

/// Where services can be read.
pub trait Services: Send + Sync {
    /// Calls `see` with every instance, service by service, always in the same order.
    fn visit(&self, see: &mut dyn FnMut(Instance<'_>));
}

/// No services.
impl Services for () {
    fn visit(&self, _see: &mut dyn FnMut(Instance<'_>)) {}
}

/// One instance of a service: a host of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// The cluster's name.
    pub service: &'a str,
    /// How the service chooses among its instances.
    pub strategy: &'a str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its name, or empty.
    pub hostname: &'a str,
    /// What is counted on it.
    pub counts: Counts,
    /// How long its requests took, if any ended.
    pub durations: Option<&'a Durations>,
}

/// What is counted on an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// 1 if it is not well enough to be chosen.
    pub unhealthy: u64,
    /// Requests given to it.
    pub requests: u64,
    /// Requests that it has now.
    pub active: i64,
    /// Connections that are open or being made.
    pub open: i64,
    /// Connections that carry requests.
    pub busy: i64,
    /// Connections that wait for one.
    pub idle: i64,
    /// Connections that could not be made, but for those that took too long.
    pub connect_errors: u64,
    /// Requests whose connection failed under them.
    pub broken: u64,
    /// Connections that took too long to be made.
    pub connect_timeouts: u64,
    /// Responses that took too long to begin.
    pub response_timeouts: u64,
}

impl Counts {
    /// Whether the instance had any traffic.
    fn is_used(&self) -> bool {
        self.requests > 0 || self.open > 0 || self.connect_errors > 0 || self.connect_timeouts > 0
    }

    fn add(&mut self, other: &Self) {
        self.unhealthy += other.unhealthy;
        self.requests += other.requests;
        self.active += other.active;
        self.open += other.open;
        self.busy += other.busy;
        self.idle += other.idle;
        self.connect_errors += other.connect_errors;
        self.broken += other.broken;
        self.connect_timeouts += other.connect_timeouts;
        self.response_timeouts += other.response_timeouts;
    }
}

/// What was read of an instance, or of all those that are not kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The cluster's name.
    pub service: Arc<str>,
    /// How the service chooses among its instances.
    pub strategy: Arc<str>,
    /// Its address, or [`OTHER`].
    pub instance: String,
    /// Host and port of `server.address` and `server.port`; the port is 0 for [`OTHER`].
    pub server: (String, u16),
    /// Whether any instance of the service had traffic.
    pub is_used: bool,
    /// What was counted.
    pub counts: Counts,
    /// How long requests took, by kind.
    pub durations: Vec<Reading>,
}

impl Row {
    fn add(&mut self, instance: &Instance<'_>) {
        self.counts.add(&instance.counts);
        let Some(durations) = instance.durations else { return };
        durations.visit(|reading| {
            let key = |r: &Reading| (r.method, r.version, r.outcome);
            match self.durations.iter_mut().find(|known| key(known) == key(&reading)) {
                Some(known) => known.buckets.add(&reading.buckets),
                None => self.durations.push(reading),
            }
        });
    }
}

/// Reads what there is now.
pub fn read(services: &dyn Services) -> Vec<Row> {
    let mut reader = Reader::default();
    services.visit(&mut |instance| reader.see(&instance));
    let mut rows = reader.rows;
    for of_service in rows.chunk_by_mut(|a, b| a.service == b.service) {
        let is_used = of_service.iter().any(|row| row.counts.is_used());
        of_service.iter_mut().for_each(|row| row.is_used = is_used);
    }
    rows
}

#[derive(Default)]
struct Reader {
    rows: Vec<Row>,
    /// Name and strategy of the service that is being read, and its rows by what they are called.
    service: Option<(Arc<str>, Arc<str>)>,
    known: HashMap<String, usize>,
    /// The row of all services that came too late.
    rest: Option<usize>,
}

impl Reader {
    fn see(&mut self, instance: &Instance<'_>) {
        let service = match &self.service {
            Some(service) if *service.0 == *instance.service => service.clone(),
            _ => {
                self.known.clear();
                let service = (instance.service.into(), instance.strategy.into());
                self.service.insert(service).clone()
            }
        };
        let mut called = instance.address.to_string();
        let is_known = self.known.contains_key(&called);
        if !is_known && self.rows.len() >= MOST {
            let row = match self.rest {
                Some(row) => row,
                None => self.begin((OTHER.into(), OTHER.into()), OTHER.to_owned(), None),
            };
            self.rest = Some(row);
            return self.rows[row].add(instance);
        }
        if !is_known && self.known.len() >= MOST_OF_A_SERVICE {
            OTHER.clone_into(&mut called);
        }
        let row = match self.known.get(&called) {
            Some(row) => *row,
            None => {
                let server = (called != OTHER).then_some((instance.hostname, instance.address));
                let row = self.begin(service, called.clone(), server);
                self.known.insert(called, row);
                row
            }
        };
        self.rows[row].add(instance);
    }

    /// A row that nothing is counted in yet.
    fn begin(
        &mut self,
        (service, strategy): (Arc<str>, Arc<str>),
        instance: String,
        server: Option<(&str, SocketAddr)>,
    ) -> usize {
        let server = match server {
            None => (OTHER.to_owned(), 0),
            Some(("", address)) => (address.ip().to_string(), address.port()),
            Some((name, address)) => (name.to_owned(), address.port()),
        };
        self.rows.push(Row {
            service,
            strategy,
            instance,
            server,
            is_used: false,
            counts: Counts::default(),
            durations: Vec::new(),
        });
        self.rows.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{StatusCode, Version};

    use super::super::durations::Outcome;
    use super::*;
    use crate::exchange::KnownMethod;

    /// So many instances of each service, each of which had one request.
    struct Many {
        services: usize,
        instances: u16,
        durations: Durations,
    }

    impl Many {
        fn new(services: usize, instances: u16) -> Self {
            let durations = Durations::default();
            let outcome = Outcome::new(Some(StatusCode::OK), None);
            let kind = (KnownMethod::Get, Version::HTTP_11);
            durations.record(kind, outcome, Duration::from_millis(1));
            Self { services, instances, durations }
        }
    }

    impl Services for Many {
        fn visit(&self, see: &mut dyn FnMut(Instance<'_>)) {
            for service in 0..self.services {
                for port in 0..self.instances {
                    see(Instance {
                        service: &format!("s{service:05}"),
                        strategy: "random",
                        address: SocketAddr::from(([10, 0, 0, 1], port)),
                        hostname: if port == 0 { "first" } else { "" },
                        counts: Counts {
                            // The second and the last are not well.
                            unhealthy: u64::from(port == 1 || port + 1 == self.instances),
                            requests: 1,
                            ..Counts::default()
                        },
                        durations: Some(&self.durations),
                    });
                }
            }
        }
    }

    #[test]
    fn instances_are_apart_with_their_name_or_address() {
        let rows = read(&Many::new(2, 3));
        let told: Vec<_> =
            rows.iter().map(|r| (&*r.service, &*r.instance, &*r.server.0, r.server.1)).collect();
        assert_eq!(told.len(), 6);
        assert_eq!(told[0], ("s00000", "10.0.0.1:0", "first", 0));
        assert_eq!(told[4], ("s00001", "10.0.0.1:1", "10.0.0.1", 1));
        assert_eq!(rows.iter().map(|r| r.counts.unhealthy).collect::<Vec<_>>(), [0, 1, 1, 0, 1, 1]);
        assert_eq!((rows[0].counts.requests, rows[0].durations.len()), (1, 1));
    }

    #[test]
    fn a_service_is_used_if_one_of_its_instances_is() {
        struct Some(u16);
        impl Services for Some {
            fn visit(&self, see: &mut dyn FnMut(Instance<'_>)) {
                for port in 0..4 {
                    let requests = u64::from(port == self.0);
                    see(Instance {
                        service: if port < 2 { "a" } else { "b" },
                        strategy: "random",
                        address: SocketAddr::from(([10, 0, 0, 1], port)),
                        hostname: "",
                        counts: Counts { requests, ..Counts::default() },
                        durations: None,
                    });
                }
            }
        }
        let used = |which| read(&Some(which)).iter().map(|row| row.is_used).collect::<Vec<_>>();
        assert_eq!(used(1), [true, true, false, false]);
        assert_eq!(used(2), [false, false, true, true]);
        assert_eq!(used(9), [false; 4]);
    }

    #[test]
    fn of_a_large_service_the_last_instances_are_one() {
        let rows = read(&Many::new(1, 150));
        assert_eq!(rows.len(), MOST_OF_A_SERVICE + 1);
        let other = rows.last().unwrap();
        assert_eq!((&*other.service, &*other.instance), ("s00000", OTHER));
        assert_eq!((other.counts.requests, other.counts.unhealthy), (50, 1));
        assert_eq!(other.durations[0].buckets.counts.iter().sum::<u64>(), 50);
        assert_eq!(rows.iter().map(|row| row.counts.requests).sum::<u64>(), 150);
    }

    #[test]
    fn of_very_many_services_the_last_are_one() {
        let rows = read(&Many::new(6_000, 2));
        assert_eq!(rows.len(), MOST + 1);
        let other = rows.last().unwrap();
        assert_eq!((&*other.service, &*other.strategy, &*other.instance), (OTHER, OTHER, OTHER));
        assert_eq!(rows.iter().map(|row| row.counts.requests).sum::<u64>(), 12_000);
    }

    #[test]
    fn an_address_that_comes_twice_is_one_instance() {
        struct Twice(Many);
        impl Services for Twice {
            fn visit(&self, see: &mut dyn FnMut(Instance<'_>)) {
                for _ in 0..2 {
                    self.0.visit(see);
                }
            }
        }
        let rows = read(&Twice(Many::new(1, 3)));
        assert_eq!(rows.iter().map(|row| row.counts.requests).collect::<Vec<_>>(), [2, 2, 2]);
    }
}
