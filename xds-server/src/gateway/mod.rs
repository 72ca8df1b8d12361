//! A gateway file: one file for people, translated into the resources that proxies take.
//!
//! ```text
//! reader, form    YAML with places       -> values, or every fault with line and column
//! block, model    one table of keys a block: types, defaults, schema, page of keys
//! rules           what must hold between the values
//! translate       values                 -> resources, the same for the same file
//! ```
//!
//! What a resource gets wrong that the rules here do not know is found by the proxy's own check, as
//! for resources that come from anywhere else, and told at the part of the file that it was made from.

mod block;
mod diff;
mod form;
mod live;
mod model;
mod nearest;
mod overlay;
mod page;
mod reader;
mod report;
mod route_rules;
mod rules;
mod translate;
mod yaml_text;

use std::path::Path;
use std::sync::Arc;

use nuncio::proto::json::encode_json;
use nuncio::proto::yaml::{Document, LineMap};
use prost_types::Any;

use crate::assemble::{Item, Origin};
use crate::problem::Problem;

use model::LoadBalancer;
use translate::{Context, Made};

pub(crate) use form::{Form, Number};
pub use live::Live;
pub(crate) use live::Refusal;
pub(crate) use model::{Gateway, Instance};
pub(crate) use overlay::{Change, Overlay};
pub use page::schema;
pub(crate) use reader::Reader;
pub use report::{Checked, check};
pub use translate::Flavour;

/// A file that was read.
pub(crate) struct GatewayFile {
    file: Arc<std::path::PathBuf>,
    lines: Arc<LineMap>,
    gateway: Gateway,
}

/// What a file becomes.
pub(crate) struct Translation {
    pub(crate) made: Vec<Made>,
    pub(crate) warnings: Vec<Problem>,
}

impl GatewayFile {
    /// Reads a file.
    pub(crate) fn open(file: &Path) -> Result<Self, Vec<Problem>> {
        let document = crate::source::files::parse(file).map_err(|problem| vec![problem])?;
        Self::read(file, document)
    }

    fn read(file: &Path, document: Document) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new(file, &document.lines);
        let gateway = Gateway::read(&mut reader, "", &document.value);
        match gateway.filter(|_| reader.faults.is_empty()) {
            Some(gateway) => Ok(Self {
                gateway,
                file: Arc::new(file.to_owned()),
                lines: Arc::new(document.lines),
            }),
            None => Err(reader.faults),
        }
    }

    /// The resources for a kind of proxy, with changes to instances.
    pub(crate) fn translate(
        &self,
        flavour: Flavour,
        overlay: &Overlay,
    ) -> Result<Translation, Vec<Problem>> {
        let own = self.gateway.load_balancer.clone().or_else(LoadBalancer::without);
        let Some(balancer) = &own else {
            // Every key of the block has a default.
            return Err(vec![Problem::new("load_balancer: has a key without a default")]);
        };
        let mut reader = Reader::new(&self.file, &self.lines);
        rules::check(&self.gateway, balancer, &mut reader);
        if !reader.faults.is_empty() {
            return Err(reader.faults);
        }
        // What is wrong with the changes has no place in the file.
        let mut changed = self.gateway.clone();
        let mut over = Reader::unplaced();
        let draining = overlay.apply(&mut changed, &mut over);
        rules::check(&changed, balancer, &mut over);
        if !over.faults.is_empty() {
            let told = |fault: Problem| Problem {
                message: format!("with the instances changed at runtime: {}", fault.message),
                ..fault
            };
            return Err(over.faults.into_iter().map(told).collect());
        }
        let context = Context { gateway: &changed, balancer, flavour, draining: &draining };
        let made = context.translate(&mut reader);
        // Those of the file that the rules told were told of both.
        let mut warnings = reader.warnings;
        warnings.extend(over.warnings.into_iter().filter(|warning| warning.field.is_empty()));
        Ok(Translation { made, warnings })
    }

    /// Resources as a source gives them.
    pub(crate) fn items(&self, made: Vec<Made>) -> Result<Vec<Item>, Vec<Problem>> {
        let mut items = Vec::with_capacity(made.len());
        let mut problems = Vec::new();
        for Made { ty, name, value, from } in made {
            let origin = Origin::of_parts(&self.file, &self.lines, from);
            match encode_json(ty.type_name(), value) {
                Ok((value, ignored)) => {
                    let any = Any { type_url: ty.url().to_owned(), value };
                    items.push(Item::from_file(any, ignored, origin));
                }
                Err(error) => problems.extend(error.faults().iter().map(|fault| {
                    let problem = Problem::new(fault.problem.clone());
                    problem.of(ty.kind(), &name, &fault.path).at(origin.place(&fault.path))
                })),
            }
        }
        if problems.is_empty() { Ok(items) } else { Err(problems) }
    }
}

/// A text as if it were the content of a file.
#[cfg(test)]
fn read_text(text: &str) -> Result<GatewayFile, Vec<Problem>> {
    let document = nuncio::proto::yaml::parse(text).unwrap();
    GatewayFile::read(Path::new("gateway.yaml"), document)
}

#[cfg(test)]
mod tests;
