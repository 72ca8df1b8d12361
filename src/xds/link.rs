//! A mux shared between its stream's task and everybody who subscribes.
//!
//! Subscribing changes state and wakes the task, which sends what the state then calls for. There
//! is no queue of changes to go stale while a stream is down.

use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::machine::Machine;
use super::mux::{Mux, Ready};
use super::stats::SourceStatus;
use super::types::{Event, ResourceType, UpdateToken, Verdict};

/// What can be asked of a stream or a file, whatever it speaks.
pub(super) trait Port: Send + Sync {
    fn subscribe_all(&self, ty: ResourceType);
    fn subscribe(&self, ty: ResourceType, names: &[Arc<str>]);
    fn unsubscribe(&self, ty: ResourceType, names: &[Arc<str>]);
    fn decide(&self, token: &UpdateToken, verdict: &Verdict);
    fn status(&self) -> SourceStatus;
}

/// Control no longer listens: there is nobody left to serve.
pub(super) struct Gone;

/// The mux and the bell of its task.
pub(super) struct Link<M> {
    mux: Mutex<Mux<M>>,
    wake: Notify,
}

impl<M: Machine> Link<M> {
    pub(super) fn new(mux: Mux<M>) -> Self {
        Self { mux: Mutex::new(mux), wake: Notify::new() }
    }

    /// Runs `act` on the mux.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Mux<M>) -> T) -> T {
        act(&mut self.mux.lock())
    }

    pub(super) fn ready(&self) -> Ready {
        self.with(|mux| mux.ready(Instant::now()))
    }

    /// Completes when the state may have changed or `at` has come. Cancel safe.
    pub(super) async fn rung(&self, at: Option<Instant>) {
        match at {
            Some(at) => tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            },
            None => self.wake.notified().await,
        }
    }

    /// Gives control what is due, into the room reserved for it.
    pub(super) fn tell(&self, room: mpsc::Permit<'_, Event>) {
        if let Some(event) = self.with(|mux| mux.take_event(Instant::now())) {
            room.send(event);
        }
    }

    /// Waits for `future`, and goes on telling control what is due: lifetimes end without a stream.
    pub(super) async fn tell_during<F: Future>(
        &self,
        events: &mpsc::Sender<Event>,
        future: F,
    ) -> Result<F::Output, Gone> {
        let mut future = pin!(future);
        loop {
            let ready = self.ready();
            tokio::select! {
                output = &mut future => return Ok(output),
                room = events.reserve(), if ready.event => {
                    self.tell(room.map_err(|mpsc::error::SendError(())| Gone)?);
                }
                () = self.rung(ready.wake) => {}
            }
        }
    }

    fn change(&self, act: impl FnOnce(&mut Mux<M>)) {
        self.with(act);
        self.wake.notify_one();
    }
}

impl<M: Machine> Port for Link<M> {
    fn subscribe_all(&self, ty: ResourceType) {
        self.change(|mux| mux.machine(ty).subscribe_all());
    }

    fn subscribe(&self, ty: ResourceType, names: &[Arc<str>]) {
        self.change(|mux| {
            let machine = mux.machine(ty);
            names.iter().for_each(|name| machine.subscribe(name));
        });
    }

    fn unsubscribe(&self, ty: ResourceType, names: &[Arc<str>]) {
        self.change(|mux| {
            let machine = mux.machine(ty);
            names.iter().for_each(|name| machine.unsubscribe(name));
        });
    }

    fn decide(&self, token: &UpdateToken, verdict: &Verdict) {
        self.change(|mux| mux.decide(token, verdict, Instant::now()));
    }

    fn status(&self) -> SourceStatus {
        self.with(|mux| mux.status())
    }
}
