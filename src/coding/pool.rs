//! What is dear to make, kept for the next body: encoders, decoders, room for their output.
//!
//! A pool belongs to one stage of one worker, so its lock is free but for a body that is dropped elsewhere.
//! Output is made in room lent for the length of one poll and copied out at its size: a body that waits
//! for its reader or its writer holds none, and nobody clears 64 KiB to fill six.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Decoder, Decoding, Encoder, Encoding, Error, Limits, Op};

/// How many bytes a pool's idle encoders, and its idle decoders, hold on to at the most.
const MOST_IDLE_BYTES: usize = 8 << 20;

/// How many buffers are kept: one for the worker, the others for bodies worked on beside it.
const MOST_SCRATCH: usize = 4;

/// Giving back so much memory at once takes longer than a worker may work without a pause.
const HEAVY_BYTES: usize = 4 << 20;

/// Encoders and decoders at rest. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    idle: Mutex<Idle>,
    slots: Slots,
}

#[derive(Default)]
struct Idle {
    encoders: Shelf<Encoder>,
    decoders: Shelf<Decoder>,
    scratch: Vec<Box<[u8]>>,
}

/// How much work may be done at a time beside the workers. Shared by all of them.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Semaphore>);

impl Default for Slots {
    /// As many as there are processors.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(processors)))
    }
}

impl Slots {
    /// Waits for a place, which is given back by dropping it. There is always one in the end: none comes
    /// only from slots that are closed, and nobody closes them.
    pub async fn acquire(self) -> Option<OwnedSemaphorePermit> {
        self.0.acquire_owned().await.ok()
    }
}

impl Pool {
    /// An empty pool of a stage that works beside its worker in these slots.
    pub fn new(slots: &Slots) -> Self {
        Self(Arc::new(Shared { idle: Mutex::default(), slots: slots.clone() }))
    }

    /// Where work is done that takes too long for a worker.
    pub fn slots(&self) -> Slots {
        self.0.slots.clone()
    }

    /// An encoder at the beginning of a stream, of this length if that is known.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] if there is no memory.
    pub fn encoder(&self, encoding: &Arc<Encoding>, length: Option<u64>) -> Result<Encoder, Error> {
        let same =
            |idle: &Encoder| Arc::ptr_eq(idle.encoding(), encoding) || idle.encoding() == encoding;
        let idle = self.0.idle.lock().encoders.take(same);
        let Some(mut idle) = idle else { return Encoder::new(encoding, length) };
        idle.reset(length)?;
        Ok(idle)
    }

    /// Takes an encoder back.
    pub fn keep_encoder(&self, encoder: Encoder) {
        let bytes = encoder.bytes();
        let dropped = match encoder.is_worth_keeping() {
            true => self.0.idle.lock().encoders.put(encoder, bytes),
            false => vec![(bytes, encoder)],
        };
        discard(dropped);
    }

    /// A decoder at the beginning of a stream.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] if there is no memory.
    pub fn decoder(&self, decoding: Decoding, limits: Limits) -> Result<Decoder, Error> {
        let idle = self.0.idle.lock().decoders.take(|idle| idle.decoding() == decoding);
        let Some(mut idle) = idle else { return Decoder::new(decoding, limits) };
        idle.reset(limits)?;
        Ok(idle)
    }

    /// Takes a decoder back.
    pub fn keep_decoder(&self, decoder: Decoder) {
        let bytes = decoder.bytes();
        let dropped = match decoder.is_worth_keeping() {
            true => self.0.idle.lock().decoders.put(decoder, bytes),
            false => vec![(bytes, decoder)],
        };
        discard(dropped);
    }

    /// Room for output.
    pub fn scratch(&self) -> Scratch {
        let idle = self.0.idle.lock().scratch.pop();
        let bytes = idle.unwrap_or_else(|| vec![0; Scratch::LENGTH].into_boxed_slice());
        Scratch { bytes, pool: self.clone() }
    }
}

/// Things of one kind at rest, with what each holds on to; the longest idle first.
struct Shelf<T> {
    idle: VecDeque<(usize, T)>,
    bytes: usize,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { idle: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Shelf<T> {
    fn take(&mut self, same: impl Fn(&T) -> bool) -> Option<T> {
        let at = self.idle.iter().rposition(|(_, idle)| same(idle))?;
        let (bytes, taken) = self.idle.remove(at)?;
        self.bytes -= bytes;
        Some(taken)
    }

    /// Keeps one, and gives out those that are too many now: what nobody asks for any more is the first.
    fn put(&mut self, item: T, bytes: usize) -> Vec<(usize, T)> {
        if bytes > MOST_IDLE_BYTES {
            return vec![(bytes, item)];
        }
        self.idle.push_back((bytes, item));
        self.bytes += bytes;
        let mut dropped = Vec::new();
        while self.bytes > MOST_IDLE_BYTES
            && let Some((bytes, old)) = self.idle.pop_front()
        {
            self.bytes -= bytes;
            dropped.push((bytes, old));
        }
        dropped
    }
}

/// Drops them, outside of the lock, and beside the worker if that takes its time.
fn discard<T: Send + 'static>(dropped: Vec<(usize, T)>) {
    let heavy = dropped.iter().any(|(bytes, _)| *bytes > HEAVY_BYTES);
    if heavy && let Ok(runtime) = Handle::try_current() {
        runtime.spawn_blocking(move || drop(dropped));
    }
}

/// Room for output, lent by a [`Pool`].
pub struct Scratch {
    bytes: Box<[u8]>,
    pool: Pool,
}

impl Scratch {
    /// How much there is: an output chunk, in which most bodies are whole.
    pub const LENGTH: usize = 64 << 10;
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let scratch = &mut self.pool.0.idle.lock().scratch;
        if scratch.len() < MOST_SCRATCH {
            scratch.push(bytes);
        }
    }
}

/// All of a small body at once.
///
/// # Errors
///
/// [`Error::Codec`] if there is no memory.
pub fn whole(bytes: &[u8], encoding: &Arc<Encoding>, pool: &Pool) -> Result<Bytes, Error> {
    let mut encoder = pool.encoder(encoding, Some(bytes.len() as u64))?;
    let mut scratch = pool.scratch();
    let (mut taken, mut made) = (0, Vec::new());
    loop {
        let step = encoder.encode(&bytes[taken..], &mut scratch, Op::Finish)?;
        taken += step.consumed;
        if step.done && made.is_empty() {
            pool.keep_encoder(encoder);
            return Ok(Bytes::copy_from_slice(&scratch[..step.produced]));
        }
        made.extend_from_slice(&scratch[..step.produced]);
        if step.done {
            pool.keep_encoder(encoder);
            return Ok(made.into());
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let idle = self.0.idle.lock();
        f.debug_struct("Pool")
            .field("encoders", &idle.encoders.idle.len())
            .field("decoders", &idle.decoders.idle.len())
            .finish_non_exhaustive()
    }
}
