//! From a compiled `ConfigSource` to a source that can be subscribed at.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Effect;
use super::follow::{Follow, SourceId};
use super::store::Map;
use crate::config::source::{ConfigSource, FileSource, GrpcSource, SourceKind};
use crate::config::{Errors, Fault, OrFault};
use crate::proto::envoy::config::core::v3::ApiConfigSource;
use crate::xds::{GrpcOptions, Source, Variant};

/// How to reach the servers of an `ApiConfigSource`; knows the clusters of the bootstrap.
pub type GrpcResolver = Arc<dyn Fn(&ApiConfigSource) -> Result<GrpcOptions, Errors> + Send + Sync>;

/// A source and how long to wait for its first answer; none is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) source: SourceId,
    pub(super) timeout: Option<Duration>,
}

/// The gRPC sources in use.
pub(super) struct Sources {
    resolver: GrpcResolver,
    /// What the aggregated stream speaks, if there is one.
    ads: Option<Variant>,
    /// Equal messages share their streams.
    grpc: Map<Vec<u8>, Arc<str>>,
    added: Vec<(Source, Box<GrpcOptions>)>,
    /// Files, and the directories that are watched for them.
    watched: Vec<(PathBuf, PathBuf)>,
}

impl Sources {
    pub(super) fn new(resolver: GrpcResolver, ads: Option<Variant>) -> Self {
        Self { resolver, ads, grpc: Map::default(), added: Vec::new(), watched: Vec::new() }
    }

    /// Where a `ConfigSource` leads. A server that cannot be reached from here is an error of the
    /// resource that names it.
    pub(super) fn resolve(
        &mut self,
        follow: &mut Follow,
        config: &ConfigSource,
    ) -> Result<Resolved, Errors> {
        let source = match &config.kind {
            SourceKind::Ads if self.ads.is_none() => {
                let reason = "the bootstrap has no dynamic_resources.ads_config";
                return Err(Fault::invalid("ads", reason).into());
            }
            SourceKind::Ads => Source::Ads,
            SourceKind::Path(FileSource { path, watched_directory }) => {
                let watched = watched_directory.as_ref();
                self.watched.extend(watched.map(|directory| (path.clone(), directory.clone())));
                Source::File(path.clone())
            }
            SourceKind::Grpc(grpc) => self.grpc(grpc).at("api_config_source")?,
        };
        Ok(Resolved { source: follow.source(&source), timeout: config.initial_fetch_timeout })
    }

    /// The same of a source of types that only delta has.
    pub(super) fn resolve_delta(
        &mut self,
        follow: &mut Follow,
        config: &ConfigSource,
    ) -> Result<Resolved, Errors> {
        let (at, is_delta) = match &config.kind {
            SourceKind::Ads => ("ads", self.ads != Some(Variant::Sotw)),
            SourceKind::Grpc(grpc) => ("api_config_source.api_type", grpc.is_delta()),
            SourceKind::Path(_) => ("path_config_source", false),
        };
        if !is_delta {
            let reason =
                "virtual hosts come over delta only: DELTA_GRPC, or ads that is DELTA_GRPC";
            return Err(Errors::from(Fault::unsupported(reason)).at(at));
        }
        self.resolve(follow, config)
    }

    fn grpc(&mut self, grpc: &GrpcSource) -> Result<Source, Errors> {
        if let Some(key) = self.grpc.get(&grpc.key) {
            return Ok(Source::Grpc(key.clone()));
        }
        let options = (self.resolver)(&grpc.api)?;
        let key: Arc<str> = format!("{}", self.grpc.len() + 1).into();
        self.grpc.insert(grpc.key.clone(), key.clone());
        let source = Source::Grpc(key);
        self.added.push((source.clone(), Box::new(options)));
        Ok(source)
    }

    pub(super) fn flush(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(self.added.drain(..).map(|(source, o)| Effect::AddGrpc(source, o)));
        let watch = |(path, directory)| Effect::WatchDirectory(path, directory);
        effects.extend(self.watched.drain(..).map(watch));
    }
}
