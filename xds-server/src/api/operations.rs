//! What the API can, one row an operation.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::gateway::{Change, Form, Gateway, Instance, Live, Number, Overlay, Reader, Refusal};
use crate::status::Status;

/// One thing that the API does.
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    /// Its path, with names in braces.
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    /// The schema of what it takes, if it takes anything.
    pub(crate) body: Option<fn() -> Value>,
    /// The status of success, and the name of the schema of what it gives.
    pub(crate) gives: (u16, Option<&'static str>),
    /// Statuses of failure, beside 401.
    pub(crate) fails: &'static [u16],
    pub(crate) run: fn(&Call<'_>, &[&str], &Value) -> Result<Reply, Refusal>,
}

/// What operations work on.
pub(crate) struct Call<'a> {
    pub(crate) live: &'a Live,
    pub(crate) status: &'a dyn Fn() -> Status,
}

/// What an operation answers.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) document: Option<Value>,
}

const INSTANCE: &str = "/v1/services/{service}/instances/{instance}";
const DRAIN: &str = "/v1/services/{service}/instances/{instance}/drain";

/// Every operation.
pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "GET",
        path: "/v1/services",
        summary: "Every service with its instances.",
        body: None,
        gives: (200, Some("Services")),
        fails: &[409],
        run: |call, _, _| Ok(ok(json!({ "services": call.live.services()? }))),
    },
    Operation {
        method: "GET",
        path: "/v1/services/{service}",
        summary: "One service with its instances.",
        body: None,
        gives: (200, Some("Service")),
        fails: &[404, 409],
        run: |call, names, _| Ok(ok(service(call, names[0])?)),
    },
    Operation {
        method: "POST",
        path: "/v1/services/{service}/instances",
        summary: "Adds an instance.",
        body: Some(Instance::schema),
        gives: (201, Some("Instance")),
        fails: &[400, 404, 409, 422, 500],
        run: add,
    },
    Operation {
        method: "PATCH",
        path: INSTANCE,
        summary: "Changes what is said of an instance; what is not said stays.",
        body: Some(changeable),
        gives: (200, Some("Instance")),
        fails: &[400, 404, 409, 422, 500],
        run: change,
    },
    Operation {
        method: "DELETE",
        path: INSTANCE,
        summary: "Removes an instance at once.",
        body: None,
        gives: (204, None),
        fails: &[404, 409, 422, 500],
        run: remove,
    },
    Operation {
        method: "POST",
        path: DRAIN,
        summary: "Drains an instance: it finishes what it has and gets nothing new.",
        body: None,
        gives: (200, Some("Instance")),
        fails: &[404, 409, 422, 500],
        run: |call, names, _| drain(call, names, true),
    },
    Operation {
        method: "DELETE",
        path: DRAIN,
        summary: "Takes an instance that drains into service again.",
        body: None,
        gives: (200, Some("Instance")),
        fails: &[404, 409, 422, 500],
        run: |call, names, _| drain(call, names, false),
    },
    Operation {
        method: "PUT",
        path: "/v1/services/{service}/weights",
        summary: "Sets weights, by instance; those that are not named stay.",
        body: Some(BTreeMap::<String, Number<1, 128>>::schema),
        gives: (200, Some("Service")),
        fails: &[400, 404, 409, 422, 500],
        run: weigh,
    },
    Operation {
        method: "GET",
        path: "/v1/proxies",
        summary: "Every connected proxy: what it was sent, what it accepted, what it refused and why.",
        body: None,
        gives: (200, Some("Proxies")),
        fails: &[],
        run: |call, _, _| Ok(ok(json!({ "proxies": (call.status)().proxies }))),
    },
];

impl Operation {
    /// What stands in the braces, if a path is this one.
    pub(crate) fn names<'a>(&self, path: &'a str) -> Option<Vec<&'a str>> {
        let (mut wanted, mut found) = (self.path.split('/'), path.split('/'));
        let mut names = Vec::new();
        loop {
            match (wanted.next(), found.next()) {
                (None, None) => return Some(names),
                (Some(name), Some(part)) if name.starts_with('{') && !part.is_empty() => {
                    names.push(part);
                }
                (Some(wanted), Some(found)) if wanted == found => {}
                _ => return None,
            }
        }
    }
}

fn ok(document: Value) -> Reply {
    Reply { status: StatusCode::OK, document: Some(document) }
}

/// Reads what a request says, by the forms of the file.
fn said<T: Form>(body: &Value) -> Result<T, Refusal> {
    let mut reader = Reader::unplaced();
    match T::read(&mut reader, "", body) {
        Some(read) if reader.faults.is_empty() => Ok(read),
        _ => Err(Refusal::Malformed(reader.faults)),
    }
}

/// What can be changed of an instance.
fn changeable() -> Value {
    let mut schema = Change::schema();
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.retain(|key, _| key != "draining" && key != "removed");
    }
    schema
}

fn service(call: &Call<'_>, name: &str) -> Result<Value, Refusal> {
    let found = call.live.services()?.into_iter().find(|service| service["name"] == name);
    found.ok_or_else(|| Refusal::Unknown(format!("service {name:?}")))
}

fn instance(call: &Call<'_>, of: &str, name: &str) -> Result<Value, Refusal> {
    let mut service = service(call, of)?;
    let instances = service["instances"].as_array_mut();
    let found = instances.and_then(|all| Some(all.iter_mut().find(|i| i["id"] == name)?.take()));
    found.ok_or_else(|| unknown(of, name))
}

fn unknown(service: &str, instance: &str) -> Refusal {
    Refusal::Unknown(format!("instance {instance:?} of service {service:?}"))
}

/// Whether a service has an instance, if there is the service.
fn has(gateway: &Gateway, service: &str, instance: &str) -> Result<bool, Refusal> {
    let found = gateway.services.iter().find(|s| s.name == service);
    let found = found.ok_or_else(|| Refusal::Unknown(format!("service {service:?}")))?;
    Ok(found.instances.iter().any(|i| i.name() == instance))
}

/// Changes an instance that there is.
fn edit(
    call: &Call<'_>,
    (of, name): (&str, &str),
    edit: impl FnOnce(&mut Overlay),
) -> Result<(), Refusal> {
    call.live.change(|gateway, overlay| match has(gateway, of, name)? {
        true => {
            edit(overlay);
            Ok(())
        }
        false => Err(unknown(of, name)),
    })
}

fn add(call: &Call<'_>, names: &[&str], body: &Value) -> Result<Reply, Refusal> {
    let (of, added) = (names[0], said::<Instance>(body)?);
    let name = added.name();
    call.live.change(|gateway, overlay| {
        if has(gateway, of, &name)? {
            return Err(Refusal::Exists(format!("an instance {name:?} of service {of:?} already")));
        }
        *overlay.change(of, &name) = Change::of(added);
        Ok(())
    })?;
    Ok(Reply { status: StatusCode::CREATED, document: Some(instance(call, of, &name)?) })
}

fn change(call: &Call<'_>, names: &[&str], body: &Value) -> Result<Reply, Refusal> {
    let mut reader = Reader::unplaced();
    let later = Change::read(&mut reader, "", body);
    for key in ["draining", "removed"].into_iter().filter(|key| body.get(key).is_some()) {
        reader.fault(key, "cannot be changed here");
    }
    let Some(later) = later.filter(|_| reader.faults.is_empty()) else {
        return Err(Refusal::Malformed(reader.faults));
    };
    edit(call, (names[0], names[1]), |overlay| {
        let change = overlay.change(names[0], names[1]);
        *change = change.clone().then(later);
    })?;
    Ok(ok(instance(call, names[0], names[1])?))
}

fn remove(call: &Call<'_>, names: &[&str], _: &Value) -> Result<Reply, Refusal> {
    let (of, name) = (names[0], names[1]);
    call.live.remove(of, name, |gateway| match has(gateway, of, name)? {
        true => Ok(()),
        false => Err(unknown(of, name)),
    })?;
    Ok(Reply { status: StatusCode::NO_CONTENT, document: None })
}

fn drain(call: &Call<'_>, names: &[&str], draining: bool) -> Result<Reply, Refusal> {
    edit(call, (names[0], names[1]), |overlay| overlay.drain(names[0], names[1], draining))?;
    Ok(ok(instance(call, names[0], names[1])?))
}

fn weigh(call: &Call<'_>, names: &[&str], body: &Value) -> Result<Reply, Refusal> {
    let weights: BTreeMap<String, Number<1, 128>> = said(body)?;
    call.live.change(|gateway, overlay| {
        for (name, weight) in weights {
            if !has(gateway, names[0], &name)? {
                return Err(unknown(names[0], &name));
            }
            overlay.change(names[0], &name).weight = Some(weight);
        }
        has(gateway, names[0], "").map(|_| ())
    })?;
    Ok(ok(service(call, names[0])?))
}
