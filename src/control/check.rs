//! Checks one resource alone, without a network and without binding anything: for the management
//! server, which refuses at the source what a proxy would reject, and for `--mode validate`.

use std::sync::Arc;

use prost_types::Any;

use super::compile::{self, Compilers, kind, peek_name};
use crate::config::{ConfigError, Errors, Fault, ResourceId};
use crate::xds::ResourceType;

/// Names of other resources that a resource needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Route tables a listener takes from RDS.
    pub route_tables: Vec<Arc<str>>,
    /// Extension configurations that a listener takes from ECDS.
    pub extensions: Vec<Arc<str>>,
    /// The assignment an EDS cluster follows: `service_name`, else the cluster's name.
    pub endpoints: Vec<Arc<str>>,
    /// Clusters that routes name, those chosen by a header left out.
    pub clusters: Vec<Arc<str>>,
}

/// What a check found.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The resource's type, if it is one that can be served.
    pub ty: Option<ResourceType>,
    /// Its kind and name.
    pub id: ResourceId,
    /// Every fault; the resource is good if there are none.
    pub errors: Vec<ConfigError>,
    /// Paths of the fields that are not known and would be ignored.
    pub ignored: Vec<String>,
    /// What it refers to, if it is good.
    pub references: References,
}

/// Checks resources, one at a time.
pub struct Checker(Compilers);

impl Default for Checker {
    fn default() -> Self {
        Self(Compilers::check_only())
    }
}

impl Checker {
    /// Checks one resource.
    pub fn resource(&self, any: &Any) -> Checked {
        let ty = ResourceType::from_type_url(&any.type_url);
        let name: Arc<str> = peek_name(&any.value).unwrap_or_default().into();
        let id = ResourceId { kind: ty.map_or("resource", kind), name };
        let mut ignored = Vec::new();
        let outcome = match ty {
            Some(ty) => compile(ty, any, &self.0, &mut ignored),
            None => {
                Err(Fault::unsupported(format!("type {:?} is not served", any.type_url)).into())
            }
        };
        let (references, errors) = match outcome {
            Ok(references) => (references, Vec::new()),
            Err(errors) => (References::default(), errors.of(&id)),
        };
        Checked { ty, id, errors, ignored, references }
    }
}

/// Checks one resource; for many, one [`Checker`] is cheaper.
pub fn resource(any: &Any) -> Checked {
    Checker::default().resource(any)
}

fn compile(
    ty: ResourceType,
    any: &Any,
    compilers: &Compilers,
    ignored: &mut Vec<String>,
) -> Result<References, Errors> {
    let mut references = References::default();
    match ty {
        ResourceType::Cluster => {
            let cluster = compilers.cluster(any, ignored)?;
            references.endpoints.extend(cluster.eds().map(|eds| eds.service_name.clone()));
        }
        ResourceType::Endpoints => {
            compile::endpoints(any, ignored)?;
        }
        ResourceType::Listener => {
            let listener = compilers.listener(any, ignored)?;
            references.route_tables.extend(listener.rds().map(|rds| rds.name.clone()));
            let names = listener.discoveries().map(|discovery| discovery.place.name.clone());
            references.extensions.extend(names);
        }
        ResourceType::Extension => {
            compile::extension(any, ignored)?;
        }
        ResourceType::Routes => {
            let table = compilers.routes(any, ignored)?;
            references.clusters.extend(table.cluster_names().iter().cloned());
        }
        ResourceType::VirtualHost => {
            let host = compilers.host(any, None, ignored)?;
            references.clusters.extend(host.cluster_names().iter().cloned());
        }
        ResourceType::Secret => {
            compile::secret(any, ignored)?;
        }
    }
    Ok(references)
}
