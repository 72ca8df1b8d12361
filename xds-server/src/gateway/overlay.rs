//! Changes to the instances of a gateway file that were made while it was served. They are kept in a
//! file of their own, which stands over the gateway file.

use std::collections::BTreeMap;

use serde_json::Value;

use super::block::block;
use super::form::{Form, Number};
use super::model::{Gateway, Instance, Service, Url};
use super::reader::Reader;
use super::translate::Draining;

block! {
    /// Changes, by service.
    Overlay {
        /// What is changed of each service.
        services: BTreeMap<String, Changes> = BTreeMap::new() => "",
    }
}

block! {
    /// Changes to one service.
    Changes {
        /// Instances by name: those of the file that are other than it says, and those that it has not.
        instances: BTreeMap<String, Change> = BTreeMap::new() => "",
    }
}

block! {
    /// What an instance is beside what the file says.
    Change {
        /// Where it is; required of one that the file has not.
        url: Option<Url> => "",
        /// Its weight.
        weight: Option<Number<1, 128>> => "",
        /// Its zone.
        zone: Option<String> => "",
        /// What else is known of it, instead of what the file says.
        metadata: Option<BTreeMap<String, Value>> => "",
        /// It finishes what it has and gets nothing new.
        draining: bool = false => "",
        /// It is not there, whatever the file says.
        removed: bool = false => "",
    }
}

/// Where what is known of an instance comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The file alone.
    File,
    /// The file, and changes to it.
    Changed,
    /// It was added.
    Added,
}

impl Change {
    /// Nothing is changed.
    pub(crate) fn none() -> Self {
        Self {
            url: None,
            weight: None,
            zone: None,
            metadata: None,
            draining: false,
            removed: false,
        }
    }

    /// An instance that the file has not, or has no more.
    pub(crate) fn of(instance: Instance) -> Self {
        let Instance { id: _, url, weight, zone, metadata } = instance;
        Self {
            url: Some(url),
            weight: Some(weight),
            zone,
            metadata: Some(metadata),
            ..Self::none()
        }
    }

    /// What a later change leaves of this one.
    pub(crate) fn then(self, later: Self) -> Self {
        Self {
            url: later.url.or(self.url),
            weight: later.weight.or(self.weight),
            zone: later.zone.or(self.zone),
            metadata: later.metadata.or(self.metadata),
            ..self
        }
    }

    fn apply(&self, instance: &mut Instance) {
        if let Some(url) = &self.url {
            instance.url = url.clone();
        }
        if let Some(weight) = self.weight {
            instance.weight = weight;
        }
        if let Some(zone) = &self.zone {
            instance.zone = Some(zone.clone());
        }
        if let Some(metadata) = &self.metadata {
            instance.metadata = metadata.clone();
        }
    }

    /// An instance that is not in the file; none without a place.
    fn instance(&self, name: &str) -> Option<Instance> {
        let mut instance = Instance {
            id: Some(name.to_owned()),
            url: self.url.clone()?,
            weight: Number(1),
            zone: None,
            metadata: BTreeMap::new(),
        };
        self.apply(&mut instance);
        Some(instance)
    }
}

impl Overlay {
    /// No changes.
    pub(crate) fn none() -> Self {
        Self { services: BTreeMap::new() }
    }

    /// The change of an instance, made if there is none.
    pub(crate) fn change(&mut self, service: &str, instance: &str) -> &mut Change {
        let changes = self.services.entry(service.to_owned());
        let changes = changes.or_insert_with(|| Changes { instances: BTreeMap::new() });
        changes.instances.entry(instance.to_owned()).or_insert_with(Change::none)
    }

    /// Takes an instance out, whether it is in the file or not.
    pub(crate) fn remove(&mut self, service: &str, instance: &str, is_in_file: bool) {
        *self.change(service, instance) = Change { removed: true, ..Change::none() };
        if !is_in_file {
            self.forget(service, instance);
        }
    }

    /// Drains an instance, or does so no longer.
    pub(crate) fn drain(&mut self, service: &str, instance: &str, draining: bool) {
        self.change(service, instance).draining = draining;
        if *self.change(service, instance) == Change::none() {
            self.forget(service, instance);
        }
    }

    fn forget(&mut self, service: &str, instance: &str) {
        if let Some(changes) = self.services.get_mut(service) {
            changes.instances.remove(instance);
        }
        self.services.retain(|_, changes| !changes.instances.is_empty());
    }

    /// Lays the changes over a gateway. Those of what the file has no more are told.
    pub(crate) fn apply(&self, gateway: &mut Gateway, reader: &mut Reader<'_>) -> Draining {
        let mut draining = Draining::new();
        for (name, Changes { instances }) in &self.services {
            let service = gateway.services.iter_mut().find(|service| service.name == *name);
            let Some(service) = service else {
                reader.warn("", format!("changes service {name:?}, which is not in the file"));
                continue;
            };
            for (id, change) in instances {
                if change.removed {
                    service.instances.retain(|instance| instance.name() != *id);
                    continue;
                }
                match service.instances.iter_mut().find(|instance| instance.name() == *id) {
                    Some(instance) => {
                        // A change of place is not one of name.
                        instance.id = Some(id.clone());
                        change.apply(instance);
                    }
                    None => match change.instance(id) {
                        Some(instance) => service.instances.push(instance),
                        None => {
                            let what = format!("changes instance {id:?} of service {name:?}");
                            reader.warn("", format!("{what}, which is not in the file"));
                        }
                    },
                }
                if change.draining {
                    draining.insert((name.clone(), id.clone()));
                }
            }
        }
        draining
    }

    /// Where what is known of an instance comes from, and whether it is draining.
    pub(crate) fn origin(&self, file: &Service, id: &str) -> (From, bool) {
        let change = self.services.get(&file.name).and_then(|changes| changes.instances.get(id));
        let is_in_file = file.instances.iter().any(|instance| instance.name() == id);
        let from = match (change, is_in_file) {
            (_, false) => From::Added,
            (Some(_), true) => From::Changed,
            (None, true) => From::File,
        };
        (from, change.is_some_and(|change| change.draining))
    }

    /// As text, which [`Form::read`] reads.
    pub(crate) fn text(&self) -> String {
        format!("{:#}\n", self.shown())
    }
}

impl From {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Changed => "changed",
            Self::Added => "added",
        }
    }
}
