//! Reading files into resources that know their lines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nuncio::proto::json::encode_json;
use nuncio::proto::yaml;
use prost_types::Any;
use serde_json::Value;

use super::super::watcher::folders_of;
use super::super::{GroupLoad, Load};
use super::rules;
use crate::assemble::{Item, Origin};
use crate::groups::{DEFAULT_GROUP, Rules};
use crate::problem::{Problem, key_path};
use crate::types::ResourceType;

/// The rule file of a folder.
const RULES: &str = "groups.yaml";

/// What was read, and where a change would change it.
pub(super) struct Read {
    pub(super) load: Result<Load, Vec<Problem>>,
    pub(super) folders: BTreeSet<PathBuf>,
}

/// Reads the default group from `config` and the groups of the rule file.
pub(super) fn read(config: &Path, groups: Option<&Path>) -> Read {
    let mut folders = BTreeSet::new();
    let load = read_groups(config, groups, &mut folders);
    Read { load, folders }
}

fn read_groups(
    config: &Path,
    groups: Option<&Path>,
    folders: &mut BTreeSet<PathBuf>,
) -> Result<Load, Vec<Problem>> {
    let mut load = Load {
        rules: Rules::default(),
        groups: vec![read_set(DEFAULT_GROUP.into(), config, groups, folders)],
    };
    let own = config.join(RULES);
    let file = match groups {
        Some(file) => file,
        None if own.exists() => &own,
        None => return Ok(load),
    };
    folders_of(file, folders);
    let document = parse(file).map_err(|problem| vec![problem])?;
    for (rule, path) in rules::compile(file, &document)? {
        let name = Arc::clone(&rule.group);
        let path = file.parent().unwrap_or(Path::new("")).join(path);
        load.groups.push(read_set(name, &path, groups, folders));
        load.rules.0.push(rule);
    }
    Ok(load)
}

/// The resources of one file or folder.
fn read_set(
    name: Arc<str>,
    path: &Path,
    groups: Option<&Path>,
    folders: &mut BTreeSet<PathBuf>,
) -> GroupLoad {
    let mut set = GroupLoad { name, ..GroupLoad::default() };
    folders_of(path, folders);
    let files = files_of(path, groups).unwrap_or_else(|problem| {
        set.errors.push(problem);
        Vec::new()
    });
    for file in files {
        folders_of(&file, folders);
        match parse(&file) {
            Ok(document) => read_file(file, document, &mut set),
            Err(problem) => set.errors.push(problem),
        }
    }
    set
}

fn files_of(path: &Path, groups: Option<&Path>) -> Result<Vec<PathBuf>, Problem> {
    let failed =
        |error: std::io::Error| Problem::new(format!("cannot be read: {error}")).in_file(path);
    if !path.metadata().map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let known = file.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        let hidden = file.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        let rules = file.file_name().is_some_and(|n| n == RULES)
            || groups.is_some_and(|g| g.canonicalize().ok() == file.canonicalize().ok());
        if known && !hidden && !rules && !file.is_dir() {
            files.push(file);
        }
    }
    if files.is_empty() {
        // A folder that is being replaced looks like this, too: nobody means to remove everything
        // by removing the files.
        let message =
            "holds no *.yaml, *.yml or *.json file; to serve nothing write `clusters: []`";
        return Err(Problem::new(message).in_file(path));
    }
    files.sort();
    Ok(files)
}

/// The document that a file holds.
pub(crate) fn parse(file: &Path) -> Result<yaml::Document, Problem> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Problem::new(format!("cannot be read: {error}")).in_file(file))?;
    yaml::parse(&text).map_err(|yaml::YamlError { line, column, message }| {
        Problem::new(message).in_file(file).on(yaml::Mark { line, column })
    })
}

fn read_file(file: PathBuf, document: yaml::Document, set: &mut GroupLoad) {
    let (file, lines) = (Arc::new(file), Arc::new(document.lines));
    let origin = |path: String| Origin::new(&file, &lines, path);
    let keys = match document.value {
        Value::Null => return,
        Value::Object(keys) => keys,
        _ => {
            let problem = Problem::new(format!("expected a mapping with {}", known_keys()));
            return set.errors.push(problem.in_file(&file).on(yaml::Mark { line: 1, column: 1 }));
        }
    };
    for (key, value) in keys {
        let here = origin(key_path(&key));
        let Some(ty) = ResourceType::from_key(&key) else {
            let message = format!("unknown key {key:?}; expected one of {}", known_keys());
            set.errors.push(Problem::new(message).at(here.place("")));
            continue;
        };
        let list = match value {
            Value::Array(list) => list,
            Value::Null => continue,
            _ => {
                set.errors.push(Problem::new(format!("{key}: expected a list")).at(here.place("")));
                continue;
            }
        };
        for (index, value) in list.into_iter().enumerate() {
            let here = origin(format!("{key}[{index}]"));
            match resource(ty, value, here) {
                Ok(item) => set.items.push(item),
                Err(found) => set.errors.extend(found),
            }
        }
    }
}

fn resource(ty: ResourceType, mut value: Value, origin: Origin) -> Result<Item, Vec<Problem>> {
    let text = |keys: &[&str]| {
        keys.iter().find_map(|key| value.get(key)?.as_str()).unwrap_or_default().to_owned()
    };
    let name = match ty {
        ResourceType::Endpoint => text(&["cluster_name", "clusterName"]),
        _ => text(&["name"]),
    };
    let problem = |field: &str, message: String| {
        Problem::new(message).of(ty.kind(), &name, field).at(origin.place(field))
    };
    // Files made for Envoy's own file subscriptions say the type of each resource.
    if let Some(said) = value.as_object_mut().and_then(|object| object.shift_remove("@type"))
        && said != ty.url()
    {
        let message = format!("{said} is not {}, the type under {:?}", ty.url(), ty.key());
        return Err(vec![problem("@type", message)]);
    }
    match encode_json(ty.type_name(), value) {
        Ok((bytes, ignored)) => {
            let any = Any { type_url: ty.url().to_owned(), value: bytes };
            Ok(Item::from_file(any, ignored, origin))
        }
        Err(error) => {
            let faults = error.faults().iter();
            Err(faults.map(|fault| problem(&fault.path, fault.problem.clone())).collect())
        }
    }
}

fn known_keys() -> String {
    ResourceType::ALL.map(ResourceType::key).join(", ")
}

#[cfg(test)]
mod tests;
