//! What the commands of `xds-server` say of gateway files.

use std::path::Path;

use serde_json::{Map, Value};

use super::GatewayFile;
use super::diff::diff;
use super::overlay::Overlay;
use super::translate::{Flavour, Made};
use super::yaml_text::yaml_of;
use crate::assemble::{Rigour, assemble};
use crate::problem::Problem;
use crate::types::ResourceType;

/// A file that is good.
#[derive(Debug)]
pub struct Checked {
    made: Vec<Made>,
    /// Doubts about it.
    pub warnings: Vec<Problem>,
}

/// Checks a file as a server would before it serves it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(file: &Path, flavour: Flavour) -> Result<Checked, Vec<Problem>> {
    let file = GatewayFile::open(file)?;
    let translation = file.translate(flavour, &Overlay::none())?;
    let items = file.items(translation.made.clone())?;
    let rigour = Rigour { strict: true, ..Rigour::default() };
    let (_, doubts) = assemble(None, items, Vec::new(), rigour)?;
    let warnings = translation.warnings.into_iter().chain(doubts).collect();
    Ok(Checked { made: translation.made, warnings })
}

impl Checked {
    /// The resources, as a file that `xds-server --config` takes.
    pub fn explain(&self) -> String {
        let mut types: Map<String, Value> = Map::new();
        for made in &self.made {
            let list = types.entry(made.ty.key()).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(made.value.clone());
            }
        }
        yaml_of(&Value::Object(types))
    }

    /// How many resources of each type it becomes: `clusters 2, listeners 1`.
    pub fn summary(&self) -> String {
        let count = |ty: ResourceType| self.made.iter().filter(|made| made.ty == ty).count();
        let counts = ResourceType::ALL.map(|ty| (count(ty), ty.key()));
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        counts.map(|(count, key)| format!("{key} {count}")).collect::<Vec<_>>().join(", ")
    }

    /// What proxies that have `old` receive, a line for each resource and each field that changed.
    pub fn diff(&self, old: &Self) -> String {
        diff(&old.made, &self.made)
    }
}
