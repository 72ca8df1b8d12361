//! The last good configuration on disk, so that a start does not depend on the management server.
//!
//! One file, replaced by rename and synced before and after, so that it is always whole: a header,
//! then one length-delimited `DeltaDiscoveryResponse` for each resource type. Secrets are left out.
//! Writing happens off the control task, one file at a time and no more often than it is worth.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use prost_types::Any;
use thiserror::Error;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;
use tracing::{info, warn};

use super::LastGood;
use super::ingest::Change;
use super::state::State;
use super::stats::{OwnStats, Stats};
use super::store::{Held, Origin, Record};
use crate::proto::envoy::service::discovery::v3 as discovery;
use crate::xds::{Resource, ResourceType, Source};

const FILE_NAME: &str = "last_good.nuncio";
const MAGIC: &[u8; 16] = b"nuncio-lastgood\n";
const FORMAT: u32 = 1;
/// Magic, format, time, length, checksum.
const HEADER: usize = 16 + 4 + 8 + 8 + 8;
/// Changes are gathered so long before they are written.
const GATHER: Duration = Duration::from_millis(200);
/// The least time between two writes.
const INTERVAL: Duration = Duration::from_secs(1);
/// And the least, as a multiple of what the last write took.
const REST: u32 = 20;

/// The types that are kept, in the order they are taken in.
const KEPT: [ResourceType; 6] = [
    ResourceType::Cluster,
    ResourceType::Endpoints,
    ResourceType::Listener,
    ResourceType::Extension,
    ResourceType::Routes,
    ResourceType::VirtualHost,
];

/// What a file holds.
#[derive(Debug)]
pub struct Saved {
    /// When it was written.
    pub when: SystemTime,
    /// The resources, by type.
    pub resources: Vec<(ResourceType, Vec<Resource>)>,
}

/// Why a file is not used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It does not begin as our files do.
    #[error("it is not a file of last good configuration")]
    Foreign,
    /// Another version of this program wrote it.
    #[error("its format is {0}, this program reads {FORMAT}")]
    OtherFormat(u32),
    /// It is shorter or longer than it says, or its bytes changed.
    #[error("it is torn: length or checksum is wrong")]
    Torn,
    /// Its parts cannot be decoded, though the checksum is right.
    #[error("it cannot be decoded: {0}")]
    Undecodable(#[source] prost::DecodeError),
    /// It holds what a management server sent to somebody else.
    #[error("it was written for node {found:?}, this is {expected:?}")]
    OtherNode {
        /// Whose it is.
        found: String,
        /// Who we are.
        expected: String,
    },
}

/// Reads and writes the file.
pub(super) struct Keeper {
    dir: PathBuf,
    path: PathBuf,
    node: String,
    stats: Arc<OwnStats>,
    writing: Option<JoinHandle<(io::Result<()>, Duration)>>,
    /// When something not yet written first changed.
    unsaved_since: Option<Instant>,
    not_before: Option<Instant>,
    failing: bool,
}

impl Keeper {
    pub(super) fn new(last_good: LastGood, stats: &Stats) -> Self {
        let LastGood { dir, node } = last_good;
        Self {
            path: dir.join(FILE_NAME),
            dir,
            node,
            stats: stats.own.clone(),
            writing: None,
            unsaved_since: None,
            not_before: None,
            failing: false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, if there is one.
    pub(super) fn read(&self) -> Result<Option<Saved>, Error> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(Error::Unreadable)?,
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::Unreadable)?;
        decode(&bytes, &self.node).map(Some)
    }

    /// Begins to write if there is something to write and it is time.
    pub(super) fn look(&mut self, state: &mut State, now: Instant) {
        if std::mem::take(&mut state.unsaved) {
            self.unsaved_since.get_or_insert(now);
        }
        if self.due(state).is_some_and(|at| at <= now) {
            self.begin(state);
        }
    }

    /// When the next write is due; none while there is nothing to write, or one is under way.
    pub(super) fn due(&self, state: &State) -> Option<Instant> {
        let since = self.unsaved_since.filter(|_| self.writing.is_none())?;
        // Half of a first set is worth less than all of the last.
        if !state.startup.is_live() {
            return None;
        }
        Some(self.not_before.map_or(since + GATHER, |at| at.max(since + GATHER)))
    }

    fn begin(&mut self, state: &State) {
        self.unsaved_since = None;
        let responses = state.to_save(&self.node);
        let (dir, path) = (self.dir.clone(), self.path.clone());
        self.writing = Some(spawn_blocking(move || {
            let started = Instant::now();
            let outcome = write(&dir, &path, &encode(&responses, SystemTime::now()));
            (outcome, started.elapsed())
        }));
    }

    /// Waits until the write under way has ended; for ever if there is none.
    ///
    /// Cancel safe.
    pub(super) async fn written(&mut self) {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let joined = writing.await;
        self.writing = None;
        let (outcome, took) =
            joined.unwrap_or_else(|error| (Err(io::Error::other(error)), Duration::ZERO));
        self.not_before = Some(Instant::now() + INTERVAL.max(took * REST));
        self.note(outcome);
    }

    /// Writes what is not written yet.
    pub(super) async fn finish(&mut self, state: &mut State) {
        if self.writing.is_some() {
            self.written().await;
        }
        self.not_before = None;
        if (std::mem::take(&mut state.unsaved) || self.unsaved_since.is_some())
            && state.startup.is_live()
        {
            self.begin(state);
            self.written().await;
        }
    }

    fn note(&mut self, outcome: io::Result<()>) {
        let file = self.path.display();
        match outcome {
            Ok(()) => {
                self.stats.snapshot_written.inc();
                if std::mem::take(&mut self.failing) {
                    info!(%file, "last good configuration is written again");
                }
            }
            Err(error) => {
                self.stats.snapshot_write_failure.inc();
                // What is not on disk now may be with the next change; service goes on.
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(%file, %error, "last good configuration cannot be written");
                }
            }
        }
    }
}

impl State {
    /// Takes in what an earlier process had, and serves it at once.
    pub(super) fn restore(&mut self, saved: Saved, now: Instant) {
        let Saved { when, resources } = saved;
        for (ty, resources) in resources {
            match ty {
                ResourceType::Cluster | ResourceType::Listener => {
                    let source = self
                        .startup
                        .subscription(ty)
                        .map_or(Source::Ads, |subscription| subscription.source.clone());
                    let source = self.follow.source(&source);
                    self.restore_at(source, ty, resources, now);
                }
                ResourceType::Endpoints | ResourceType::Extension | ResourceType::Routes => {
                    // A name may be wanted at several sources; the file does not say whose it is.
                    let mut sources: Vec<_> = self.follow.wanted(ty).map(|w| w.source).collect();
                    sources.sort_unstable();
                    sources.dedup();
                    for source in sources {
                        self.restore_at(source, ty, resources.clone(), now);
                    }
                }
                ResourceType::VirtualHost => {
                    for source in self.host_sources() {
                        self.restore_at(source, ty, resources.clone(), now);
                    }
                }
                ResourceType::Secret => {}
            }
        }
        let subscribed = |ty: &ResourceType| self.startup.subscription(*ty).is_some();
        self.startup.stale = [ResourceType::Cluster, ResourceType::Listener]
            .into_iter()
            .filter(subscribed)
            .collect();
        self.startup.restored = Some(when);
        self.unsaved = false;
        self.go_live();
    }

    fn restore_at(
        &mut self,
        source: super::follow::SourceId,
        ty: ResourceType,
        resources: Vec<Resource>,
        now: Instant,
    ) {
        let change = Change { resources, ..Change::of(Origin::Disk, source, ty, Vec::new(), "") };
        for rejection in self.ingest(change, now).rejected {
            warn!(error = rejection.error, "a resource read from disk is not used");
        }
    }

    /// The accepted dynamic resources. Cheap: bytes are shared until they are encoded.
    fn to_save(&self, node: &str) -> Vec<Saving> {
        let mut saving: Vec<Saving> = KEPT
            .iter()
            .map(|ty| Saving { ty: *ty, node: node.to_owned(), resources: Vec::new() })
            .collect();
        for saving in &mut saving {
            let list = &mut saving.resources;
            match saving.ty {
                ResourceType::Cluster => collect(self.clusters.records.iter(), list),
                ResourceType::Listener => collect(self.listeners.records.iter(), list),
                ResourceType::Endpoints => {
                    collect(self.endpoints.records.iter().map(|(w, r)| (&w.name, r)), list);
                }
                ResourceType::Extension => {
                    collect(self.extensions.records.iter().map(|(w, r)| (&w.name, r)), list);
                }
                ResourceType::Routes => {
                    collect(self.routes.records.iter().map(|(w, r)| (&w.name, r)), list);
                }
                ResourceType::VirtualHost => {
                    collect(self.hosts.records.iter().map(|(w, r)| (&w.name, r)), list);
                }
                ResourceType::Secret => {}
            }
        }
        saving
    }
}

/// The resources of one type on their way to disk: name, version, bytes.
struct Saving {
    ty: ResourceType,
    node: String,
    resources: Vec<(Arc<str>, Arc<str>, bytes::Bytes)>,
}

fn collect<'a, T: 'a>(
    records: impl Iterator<Item = (&'a Arc<str>, &'a Record<T>)>,
    list: &mut Vec<(Arc<str>, Arc<str>, bytes::Bytes)>,
) {
    let newest = |(name, record): (&Arc<str>, &'a Record<T>)| {
        let Held { raw, version, .. } = record.newest()?;
        (record.origin != Origin::Static).then(|| (name.clone(), version.clone(), raw.clone()))
    };
    list.extend(records.filter_map(newest));
}

fn encode(saving: &[Saving], when: SystemTime) -> Vec<u8> {
    let mut payload = Vec::new();
    for Saving { ty, node, resources } in saving {
        let resource = |(name, version, raw): &(Arc<str>, Arc<str>, bytes::Bytes)| {
            let body = Any { type_url: ty.type_url().to_owned(), value: raw.to_vec() };
            discovery::Resource {
                name: name.to_string(),
                version: version.to_string(),
                resource: Some(body),
                ..Default::default()
            }
        };
        let response = discovery::DeltaDiscoveryResponse {
            type_url: ty.type_url().to_owned(),
            // The field that says whose word it is says here whose it was meant for.
            system_version_info: node.clone(),
            resources: resources.iter().map(resource).collect(),
            ..Default::default()
        };
        payload.extend(response.encode_length_delimited_to_vec());
    }
    let seconds = when.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend(seconds.to_le_bytes());
    bytes.extend((payload.len() as u64).to_le_bytes());
    bytes.extend(checksum(seconds, &payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

fn decode(bytes: &[u8], node: &str) -> Result<Saved, Error> {
    let rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or(Error::Foreign)?;
    let (format, rest) = rest.split_first_chunk().ok_or(Error::Torn)?;
    let format = u32::from_le_bytes(*format);
    if format != FORMAT {
        return Err(Error::OtherFormat(format));
    }
    let (seconds, rest) = rest.split_first_chunk().ok_or(Error::Torn)?;
    let (length, rest) = rest.split_first_chunk().ok_or(Error::Torn)?;
    let (sum, mut payload) = rest.split_first_chunk().ok_or(Error::Torn)?;
    let seconds = u64::from_le_bytes(*seconds);
    if u64::from_le_bytes(*length) != payload.len() as u64
        || u64::from_le_bytes(*sum) != checksum(seconds, payload)
    {
        return Err(Error::Torn);
    }
    let when = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(Error::Torn)?;
    let mut resources = Vec::new();
    while !payload.is_empty() {
        let response = discovery::DeltaDiscoveryResponse::decode_length_delimited(&mut payload)
            .map_err(Error::Undecodable)?;
        if response.system_version_info != node {
            let found = response.system_version_info;
            return Err(Error::OtherNode { found, expected: node.to_owned() });
        }
        let Some(ty) = ResourceType::from_type_url(&response.type_url) else { continue };
        let resource = |r: discovery::Resource| {
            let name = Some(r.name);
            Some(Resource { name, version: r.version, body: r.resource?, ttl: None })
        };
        resources.push((ty, response.resources.into_iter().filter_map(resource).collect()));
    }
    Ok(Saved { when, resources })
}

/// FNV-1a. It finds accidents, which is all it is for.
fn checksum(seconds: u64, payload: &[u8]) -> u64 {
    let bytes = seconds.to_le_bytes().into_iter().chain(payload.iter().copied());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Replaces the file: whoever reads it sees the old or the new one, also after a power cut.
fn write(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!(".{FILE_NAME}.{}", std::process::id()));
    let written = fs::create_dir_all(dir)
        .and_then(|()| File::create(&temporary))
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(dir)?.sync_all());
    if written.is_err() {
        // It may not be there; the first error is the one to tell.
        let _absent = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saving() -> Vec<Saving> {
        let resource = |n: &str| (Arc::from(n), Arc::from("7"), bytes::Bytes::from(n.to_owned()));
        vec![Saving {
            ty: ResourceType::Cluster,
            node: "me".into(),
            resources: vec![resource("a"), resource("b")],
        }]
    }

    #[test]
    fn what_is_written_is_read() {
        let when = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let saved = decode(&encode(&saving(), when), "me").unwrap();
        assert_eq!(saved.when, when);
        let (ty, resources) = &saved.resources[0];
        assert_eq!((*ty, resources.len()), (ResourceType::Cluster, 2));
        assert_eq!(resources[1].name.as_deref(), Some("b"));
        assert_eq!((&*resources[1].version, &*resources[1].body.value), ("7", b"b".as_slice()));
    }

    #[test]
    fn every_torn_or_foreign_file_is_refused() {
        let good = encode(&saving(), UNIX_EPOCH);
        for end in 0..good.len() {
            assert!(decode(&good[..end], "me").is_err(), "cut at {end}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad, "me").is_err(), "flipped at {at}");
        }
        assert!(matches!(decode(&[good, vec![0]].concat(), "me"), Err(Error::Torn)));
        assert!(matches!(decode(b"PK\x03\x04 something else", "me"), Err(Error::Foreign)));
        let other = decode(&encode(&saving(), UNIX_EPOCH), "you");
        assert!(matches!(other, Err(Error::OtherNode { .. })));
    }

    #[test]
    fn the_file_is_replaced_and_leaves_nothing_beside_it() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("made").join("when needed");
        let path = dir.join(FILE_NAME);
        write(&dir, &path, b"one").unwrap();
        write(&dir, &path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        assert!(write(&path.join("under a file"), &path, b"x").is_err());
    }
}
