//! Writes the corpora to begin with: `cargo run --example seeds -- FILE..` with files of resources
//! (`listeners: clusters: routes: endpoints: extensions:`) and bootstraps, in YAML or JSON.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use nuncio::proto::{json, yaml};
use prost::Message;
use prost_types::Any;
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (n, file) in env::args().skip(1).enumerate() {
        let text = fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
        let document = yaml::parse(&text).map_err(|e| format!("{file}: {e}"))?;
        let resources = document.value.get("static_resources");
        let bootstrap = resources.is_some() || document.value.get("admin").is_some();
        let target = if bootstrap { "bootstrap" } else { "yaml" };
        seed(&corpus, target, &n.to_string(), text.as_bytes())?;
        for (key, type_name) in nuncio_fuzz::SECTIONS {
            let list = resources.unwrap_or(&document.value).get(key).and_then(Value::as_array);
            for (i, resource) in list.into_iter().flatten().enumerate() {
                let Ok((value, _)) = json::encode_json(type_name, resource.clone()) else {
                    continue;
                };
                let name = format!("{n}-{i}");
                seed(&corpus, &format!("compile_{}", nuncio_fuzz::target(key)), &name, &value)?;
                let type_url = format!("type.googleapis.com/{type_name}");
                let any = Any { type_url, value }.encode_to_vec();
                seed(&corpus, "any", &format!("{key}-{name}"), &any)?;
            }
        }
    }
    Ok(())
}

fn seed(corpus: &Path, target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = corpus.join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("seed-{name}")), bytes)
}
