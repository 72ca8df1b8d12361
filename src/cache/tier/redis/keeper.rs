//! The task that keeps a link to the server: it connects, subscribes, reads the log, then hands the link
//! out and listens until it is lost. What it waits between attempts grows while they come to nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use bytes::Bytes;
use redis::{ErrorKind, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::connection::{self, Pushes};
use super::log::{News, Task};
use super::{Link, Shared};

/// How often the log is read though nobody said that there is something new: a message may be lost
/// between members of a cluster, and a log that is never asked for may be evicted.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Ceilings of the waits between attempts.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A link that lived this long was a good one: the next attempt is a first one again.
const SETTLED: Duration = Duration::from_secs(10);

/// What a message on the channel begins with: what it is, then who sent it.
const FORGOTTEN: u8 = b'K';
const LOOK: u8 = b'L';

/// The message that says that the log has something new.
pub(super) fn notice(sender: [u8; 8]) -> Vec<u8> {
    [&[LOOK][..], &sender].concat()
}

/// The message that goes with keys that were forgotten.
pub(super) fn forgotten(sender: [u8; 8], message: &[u8]) -> Vec<u8> {
    [&[FORGOTTEN][..], &sender, message].concat()
}

/// Keeps a link for ever.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut ceiling = FIRST_WAIT;
    let mut is_known_to_fail = false;
    loop {
        match connect(&shared).await {
            Ok((link, pushes)) => {
                is_known_to_fail = false;
                let since = Instant::now();
                tracing::info!("the cache tier is there");
                shared.stats.connected.set(1);
                shared.link.send_replace(Some(Arc::clone(&link)));
                if let Err(error) = serve(&shared, &link, pushes).await {
                    shared.lose(&link, &error);
                }
                if since.elapsed() >= SETTLED {
                    ceiling = FIRST_WAIT;
                }
            }
            Err(error) if is_known_to_fail => {
                tracing::debug!(%error, "the cache tier is not there")
            }
            Err(error) => {
                is_known_to_fail = true;
                tracing::warn!(%error, "the cache tier is not there");
            }
        }
        // At least half of it, so that a server in trouble has some rest.
        sleep(ceiling.mul_f64(rand::random_range(0.5..1.0))).await;
        ceiling = (ceiling * 2).min(LONGEST_WAIT);
    }
}

async fn connect(shared: &Shared) -> RedisResult<(Arc<Link>, Pushes)> {
    let (reads, writes, pushes) = shared.servers.connect().await?;
    let link = Link { reads, writes, trouble: AtomicU32::new(0), lost: Notify::new() };
    let subscribed = timeout(super::WRITTEN_WITHIN, link.writes.subscribe(&shared.names.channel));
    subscribed.await.unwrap_or_else(|_| Err(connection::late()))?;
    // After that no message is missed; what was missed before, nobody knows.
    step(shared, &link, &Task::Sync).await?;
    // A server that is there but slow would cost every request its timeout.
    let mut probe = redis::cmd("HGET");
    probe.arg(&shared.names.log).arg("last");
    let probed = timeout(shared.timeout, link.reads.ask(&probe));
    probed.await.unwrap_or_else(|_| Err(connection::late()))?;
    shared.tell(News { missed: true, ..News::default() });
    Ok((Arc::new(link), pushes))
}

/// Listens until the link is lost, by others or with an error.
async fn serve(shared: &Shared, link: &Link, mut pushes: Pushes) -> RedisResult<()> {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut subscriptions = 0;
    loop {
        tokio::select! {
            () = link.lost.notified() => return Ok(()),
            () = pushes.overrun.notified() => {
                return Err((ErrorKind::Io, "more messages than can be taken").into());
            }
            _ = heartbeat.tick() => {
                let news = step(shared, link, &Task::Sync).await?;
                shared.tell(news);
            }
            push = pushes.receiver.recv() => match push {
                Some(PushInfo { kind: PushKind::Subscribe, .. }) => {
                    // The first is ours; then a member of the cluster was replaced by another.
                    subscriptions += 1;
                    if subscriptions > 1 {
                        shared.tell(News { missed: true, ..News::default() });
                    }
                }
                Some(PushInfo { kind: PushKind::Message, data }) => {
                    hear(shared, link, &data).await?;
                }
                Some(PushInfo { kind: PushKind::Disconnection, .. }) | None => {
                    return Err((ErrorKind::Io, "the server closed the connection").into());
                }
                Some(_) => {}
            },
        }
    }
}

/// A message on the channel. What is not ours is nothing to us.
async fn hear(shared: &Shared, link: &Link, data: &[Value]) -> RedisResult<()> {
    let Some(Value::BulkString(text)) = data.get(1) else { return Ok(()) };
    let Some((kind, rest)) = text.split_first() else { return Ok(()) };
    let Some((sender, message)) = rest.split_first_chunk::<8>() else { return Ok(()) };
    if *sender == shared.sender {
        return Ok(());
    }
    match *kind {
        FORGOTTEN => {
            let messages = vec![Bytes::copy_from_slice(message)];
            shared.tell(News { messages, missed: false });
        }
        LOOK => {
            let news = step(shared, link, &Task::Sync).await?;
            shared.tell(news);
        }
        _ => {}
    }
    Ok(())
}

/// Takes a step in the log.
pub(super) async fn step(shared: &Shared, link: &Link, task: &Task) -> RedisResult<News> {
    let _turn = shared.turn.lock().await;
    // A log that somebody damaged is replaced by a new one.
    for task in [task, &Task::Renew] {
        let command = shared.log.lock().command(&shared.names, task);
        let answer = link.write(&command).await?;
        if let Ok(news) = shared.log.lock().apply(&answer) {
            return Ok(news);
        }
    }
    Err(RedisError::from((ErrorKind::UnexpectedReturnType, "the log of purges is unreadable")))
}
