//! Where a resource comes from: `config.core.v3.ConfigSource`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::error::{Errors, Fault, OrFault};
use super::fields;
use crate::proto::envoy::config::core::v3 as core;

/// Time to wait for the first answer before going on without, if the source does not say.
pub const DEFAULT_INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// A compiled `ConfigSource`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigSource {
    /// The server or file.
    pub kind: SourceKind,
    /// How long to wait for the first answer; `None` is for ever (the field is 0).
    pub initial_fetch_timeout: Option<Duration>,
}

/// The server or file of a [`ConfigSource`].
#[derive(Debug, Clone, PartialEq)]
pub enum SourceKind {
    /// The bootstrap's aggregated stream; `self` means the same here, as in gRPC.
    Ads,
    /// A server of its own, one stream a type.
    Grpc(Arc<GrpcSource>),
    /// A file that is replaced by rename.
    Path(FileSource),
}

/// A file, and where renames replace it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    /// The file.
    pub path: PathBuf,
    /// The directory in which something is renamed, if not the file's own.
    pub watched_directory: Option<PathBuf>,
}

/// A dedicated gRPC source. Equal messages share their streams.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcSource {
    /// The message as it came; its server is made of it where streams are opened.
    pub api: core::ApiConfigSource,
    /// The message's bytes: equal sources have equal keys.
    pub key: Vec<u8>,
}

impl GrpcSource {
    /// Whether it speaks the incremental protocol.
    pub fn is_delta(&self) -> bool {
        self.api.api_type == core::api_config_source::ApiType::DeltaGrpc as i32
    }
}

/// Compiles a `ConfigSource`.
pub fn compile(source: &core::ConfigSource) -> Result<ConfigSource, Errors> {
    use core::config_source::ConfigSourceSpecifier as Specifier;
    let core::ConfigSource { config_source_specifier, initial_fetch_timeout, resource_api_version } =
        source;
    let mut errors = Errors::new();
    errors.take(v3(*resource_api_version).at("resource_api_version"));
    let timeout = match initial_fetch_timeout {
        None => Some(Some(DEFAULT_INITIAL_FETCH_TIMEOUT)),
        Some(value) => errors
            .take(fields::duration(value).at("initial_fetch_timeout"))
            .map(|timeout| (!timeout.is_zero()).then_some(timeout)),
    };
    let kind = match config_source_specifier {
        None => {
            errors.push("", Fault::Required);
            None
        }
        Some(Specifier::Ads(core::AggregatedConfigSource {})) => Some(SourceKind::Ads),
        Some(Specifier::Self_(core::SelfConfigSource { transport_api_version })) => errors
            .take(v3(*transport_api_version).at("self.transport_api_version"))
            .map(|()| SourceKind::Ads),
        Some(Specifier::Path(path)) => {
            let path = errors.take(fields::non_empty(path).at("path"));
            path.map(|path| {
                SourceKind::Path(FileSource { path: (&*path).into(), watched_directory: None })
            })
        }
        Some(Specifier::PathConfigSource(message)) => {
            errors.take(file(message).at("path_config_source")).map(SourceKind::Path)
        }
        Some(Specifier::ApiConfigSource(api)) => {
            errors.take(grpc(api).at("api_config_source")).map(SourceKind::Grpc)
        }
    };
    match (kind, timeout) {
        (Some(kind), Some(initial_fetch_timeout)) if errors.is_empty() => {
            Ok(ConfigSource { kind, initial_fetch_timeout })
        }
        _ => Err(errors),
    }
}

fn file(message: &core::PathConfigSource) -> Result<FileSource, Errors> {
    let core::PathConfigSource { path, watched_directory } = message;
    let path = fields::non_empty(path).at("path")?;
    let watched = watched_directory.as_ref().map(|core::WatchedDirectory { path }| {
        fields::non_empty(path).at("watched_directory.path").map(|path| PathBuf::from(&*path))
    });
    Ok(FileSource { path: (&*path).into(), watched_directory: watched.transpose()? })
}

/// Checks an `ApiConfigSource` that names gRPC servers.
pub fn grpc(api: &core::ApiConfigSource) -> Result<Arc<GrpcSource>, Errors> {
    use core::api_config_source::ApiType;
    let core::ApiConfigSource {
        api_type,
        grpc_services,
        // For REST only.
        request_timeout: _,
        // They are compiled where streams are opened.
        rate_limit_settings: _,
        set_node_on_first_message_only: _,
        transport_api_version,
    } = api;
    let mut errors = Errors::new();
    errors.take(v3(*transport_api_version).at("transport_api_version"));
    match fields::enumeration::<ApiType>(*api_type).at("api_type") {
        Ok(ApiType::Grpc | ApiType::DeltaGrpc) => {}
        Ok(ApiType::AggregatedGrpc | ApiType::AggregatedDeltaGrpc) => errors.push(
            "api_type",
            Fault::unsupported(
                "AGGREGATED types are not supported; use ads, or GRPC or DELTA_GRPC",
            ),
        ),
        Ok(_) => errors.push(
            "api_type",
            Fault::unsupported("REST subscriptions are not supported; use GRPC or DELTA_GRPC"),
        ),
        Err(error) => {
            errors.take::<()>(Err(error));
        }
    }
    if grpc_services.is_empty() {
        errors.push("grpc_services", Fault::Required);
    }
    errors.finish()?;
    Ok(Arc::new(GrpcSource { key: api.encode_to_vec(), api: api.clone() }))
}

/// Only version 3 of the API is spoken; unset means that too.
fn v3(version: i32) -> Result<(), Errors> {
    match fields::enumeration::<core::ApiVersion>(version)? {
        core::ApiVersion::Auto | core::ApiVersion::V3 => Ok(()),
        core::ApiVersion::V2 => {
            Err(Fault::unsupported("version 2 of the API is not supported; use V3").into())
        }
    }
}
