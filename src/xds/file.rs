//! Resources from a file: `ConfigSource.path_config_source`, or the older `path`.
//!
//! The file holds a discovery response, or a list of resources with their types. It is replaced by
//! renaming another over it, so that it is never seen half written; writing into it in place is
//! not noticed. A file that cannot be read or decoded changes nothing in service.

use std::hash::{DefaultHasher, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prost_types::Any;
use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use super::link::Port;
use super::stats::{SourceStatus, StreamStats, TypeStats, TypeStatus};
use super::turn::{Outcome, Outstanding, Turn};
use super::types::{
    Event, Rejection, Resource, ResourceType, Source, Update, UpdateToken, Verdict,
};
use super::watch::DirectoryWatch;
use super::wrapper::{self, Unwrapped};

/// Turns the bytes of a file into resources. It lives with the YAML and JSON forms of messages.
pub type FileDecoder = fn(&[u8]) -> Result<Vec<Any>, String>;

/// How long to wait before looking again for a directory that cannot be watched.
const WATCH_AGAIN: Duration = Duration::from_secs(5);

/// One resource type in one file.
pub(super) struct FileLink {
    source: Source,
    path: PathBuf,
    directory: PathBuf,
    ty: ResourceType,
    stats: Arc<StreamStats>,
    type_stats: Arc<TypeStats>,
    state: Mutex<State>,
    /// Rung when something was renamed in the directory, and when control decided or subscribed.
    wake: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// Control wants to see the resources even if the file did not change.
    wanted: bool,
    /// The version last handed to control.
    seen: Option<String>,
    turn: Turn<()>,
    connected: bool,
    since: Option<SystemTime>,
    version: String,
    last_error: Option<String>,
    last_nack: Option<String>,
}

impl FileLink {
    /// `watched` is `PathConfigSource.watched_directory`; by default the file's own.
    pub(super) fn new(path: PathBuf, watched: Option<PathBuf>, ty: ResourceType) -> Self {
        let own = path.parent().filter(|p| !p.as_os_str().is_empty());
        let directory =
            watched.unwrap_or_else(|| own.map_or_else(|| PathBuf::from("."), PathBuf::from));
        Self {
            source: Source::File(path.clone()),
            path,
            directory,
            ty,
            stats: Arc::default(),
            type_stats: Arc::default(),
            state: Mutex::default(),
            wake: Arc::default(),
        }
    }

    fn want(&self) {
        self.state.lock().wanted = true;
        self.wake.notify_one();
    }

    /// Reads the file, if it may be handed on now, and gives what control should hear.
    async fn look(&self, decode: FileDecoder) -> Option<Event> {
        if self.state.lock().turn.is_outstanding() {
            return None;
        }
        self.type_stats.update_attempt.inc();
        let (version, resources) = match read(self.path.clone(), decode).await {
            Ok(read) => read,
            Err(error) => return self.failed(error),
        };
        let mut state = self.state.lock();
        if !state.connected {
            (state.connected, state.since) = (true, Some(SystemTime::now()));
            self.stats.opened.inc();
        }
        state.last_error = None;
        let wanted = std::mem::take(&mut state.wanted);
        if state.seen.as_deref() == Some(version.as_str()) && !wanted {
            return None;
        }
        self.stats.responses.inc();
        info!(source = %self.source, ty = %self.ty, version, "resource file read");
        state.seen = Some(version.clone());
        let (resources, malformed) = open_all(self.ty, &version, resources);
        let seq = state.turn.hand(Outstanding {
            version: version.clone(),
            malformed: malformed.clone(),
            ..Outstanding::default()
        });
        Some(Event::Update(Update {
            token: UpdateToken { source: self.source.clone(), ty: self.ty, seq },
            source: self.source.clone(),
            ty: self.ty,
            version: version.into(),
            // Something unreadable and nameless may be any resource, so absence proves nothing.
            full: self.ty.wildcard() && malformed.iter().all(|m| !m.name.is_empty()),
            resources,
            kept: malformed.iter().filter(|m| !m.name.is_empty()).map(|m| m.name.clone()).collect(),
            removed: Vec::new(),
            answered: Vec::new(),
            expired: false,
            malformed,
        }))
    }

    /// Notes an error. None when it is no news.
    fn failed(&self, error: String) -> Option<Event> {
        self.stats.failed.inc();
        self.type_stats.update_failure.inc();
        let mut state = self.state.lock();
        if state.connected || state.since.is_none() {
            (state.connected, state.since) = (false, Some(SystemTime::now()));
        }
        if state.last_error.as_ref() == Some(&error) {
            return None;
        }
        warn!(
            source = %self.source, ty = %self.ty, error,
            "resource file not usable; what was accepted stays in service"
        );
        state.last_error = Some(error.clone());
        Some(Event::Disconnected { source: self.source.clone(), ty: Some(self.ty), error })
    }
}

/// Follows the file until control is gone.
pub(super) async fn run(
    link: Arc<FileLink>,
    watch: Arc<DirectoryWatch>,
    decode: FileDecoder,
    events: mpsc::Sender<Event>,
) {
    // Watching comes before reading, or a rename between the two would be missed.
    while let Err(error) = watch.add(&link.directory, &link.wake) {
        let error = format!("cannot watch {}: {error}", link.directory.display());
        if let Some(event) = link.failed(error)
            && events.send(event).await.is_err()
        {
            return;
        }
        tokio::time::sleep(WATCH_AGAIN).await;
    }
    loop {
        if let Some(event) = link.look(decode).await
            && events.send(event).await.is_err()
        {
            return;
        }
        link.wake.notified().await;
    }
}

/// The resources of the file, and a version made from its bytes.
async fn read(path: PathBuf, decode: FileDecoder) -> Result<(String, Vec<Any>), String> {
    let reading = tokio::task::spawn_blocking(move || {
        let named = |error: String| format!("{}: {error}", path.display());
        let bytes = std::fs::read(&path).map_err(|error| named(error.to_string()))?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        let version = format!("{:016x}", hasher.finish());
        Ok((version, decode(&bytes).map_err(named)?))
    });
    reading.await.unwrap_or_else(|error| Err(format!("reading was interrupted: {error}")))
}

fn open_all(
    ty: ResourceType,
    version: &str,
    resources: Vec<Any>,
) -> (Vec<Resource>, Vec<Rejection>) {
    let (mut opened, mut malformed) = (Vec::new(), Vec::new());
    for (index, any) in resources.into_iter().enumerate() {
        match wrapper::open_any(ty, index, any) {
            Err(rejection) => malformed.push(rejection),
            Ok(Unwrapped { name, version: own, body, ttl, aliases: _, wrapped: _ }) => {
                let Some(body) = body.filter(|_| ttl.is_none()) else {
                    let reason = format_args!("in a file it needs a body and may have no ttl");
                    malformed.push(wrapper::refuse(&name, index, reason));
                    continue;
                };
                opened.push(Resource {
                    name: (!name.is_empty()).then_some(name),
                    version: if own.is_empty() { version.to_owned() } else { own },
                    body,
                    ttl: None,
                });
            }
        }
    }
    (opened, malformed)
}

impl Port for FileLink {
    fn subscribe_all(&self, _: ResourceType) {
        self.want();
    }

    fn subscribe(&self, _: ResourceType, _: &[Arc<str>]) {
        self.want();
    }

    fn unsubscribe(&self, _: ResourceType, _: &[Arc<str>]) {}

    fn decide(&self, token: &UpdateToken, verdict: &Verdict) {
        let mut state = self.state.lock();
        let Some((decided, outcome)) = state.turn.decide(token.seq, verdict) else { return };
        // Nobody waits for the answer to a file.
        state.turn.answer = None;
        match outcome {
            Outcome::Accepted => {
                state.version = decided.version;
                state.last_nack = None;
                self.type_stats.update_success.inc();
            }
            Outcome::Rejected(error) => {
                warn!(source = %self.source, ty = %self.ty, error, "resource file rejected");
                state.last_nack = Some(error);
                self.type_stats.update_rejected.inc();
            }
        }
        drop(state);
        // The file may have changed while control was deciding.
        self.wake.notify_one();
    }

    fn status(&self) -> SourceStatus {
        let state = self.state.lock();
        SourceStatus {
            source: self.source.clone(),
            ty: Some(self.ty),
            connected: state.connected,
            since: state.since,
            control_plane: String::new(),
            last_error: state.last_error.clone(),
            stats: self.stats.clone(),
            types: vec![TypeStatus {
                ty: self.ty,
                version: state.version.clone(),
                last_nack: state.last_nack.clone(),
                stats: self.type_stats.clone(),
            }],
        }
    }
}

#[cfg(test)]
mod tests;
