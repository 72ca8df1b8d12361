//! Compiles `proto/` to Rust and to a descriptor set, without `protoc`.
//!
//! The descriptor set keeps every declared field: `proto::audit` reads the bytes that arrive against
//! it. The generated types leave out the fields marked `(nuncio.refused)`, so that what is left of a
//! message can be destructured whole and each field of it must be honoured.

use std::collections::HashSet;
use std::error::Error;
use std::path::{Path, PathBuf};

use protox::prost::Message;
use protox::prost_reflect::{DescriptorPool, DynamicMessage};
use tonic_prost_build::{Config, FileDescriptorSet};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("proto");
    println!("cargo:rerun-if-changed=proto");
    let mut files = Vec::new();
    proto_files(root, &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).open_files(&files)?;
    let encoded = compiler.encode_file_descriptor_set();
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), &encoded)?;

    let refused = refused_fields(&DescriptorPool::decode(encoded.as_slice())?)?;
    let mut set = FileDescriptorSet::decode(encoded.as_slice())?;
    for file in &mut set.file {
        let package = file.package().to_owned();
        for message in &mut file.message_type {
            strip(message, &package, &refused);
        }
    }

    let mut config = Config::new();
    config.enable_type_names();
    config.type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure().include_file("proto.rs").compile_fds_with_config(set, config)?;
    Ok(())
}

fn proto_files(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

/// Full names of the fields that carry the option `nuncio.refused`.
fn refused_fields(pool: &DescriptorPool) -> Result<HashSet<String>, Box<dyn Error>> {
    let option = pool.get_extension_by_name("nuncio.refused").ok_or("nuncio.refused is missing")?;
    let mut refused = HashSet::new();
    for field in pool.all_messages().flat_map(|m| m.fields().collect::<Vec<_>>()) {
        let options: DynamicMessage = field.options();
        if options.has_extension(&option) {
            refused.insert(field.full_name().to_owned());
        }
    }
    Ok(refused)
}

fn strip(message: &mut prost_types::DescriptorProto, scope: &str, refused: &HashSet<String>) {
    let name = format!("{scope}.{}", message.name());
    message.field.retain(|f| !refused.contains(&format!("{name}.{}", f.name())));
    for nested in &mut message.nested_type {
        strip(nested, &name, refused);
    }
}
