//! The task that writes what waits. Fills are tried once. Orders are tried until they are carried out.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use redis::{Cmd, RedisResult, Value};

use super::keeper::{forgotten, step};
use super::log::Task;
use super::queue::{Fill, Order, What, Work};
use super::{Link, Shared, value};

/// How long a tombstone stays, and how long a fill may take. What is between is for the way to the
/// server and through it.
const TOMBSTONE_STAYS: Duration = Duration::from_secs(120);
const FILLED_WITHIN: Duration = Duration::from_secs(60);

/// Keeps a value unless there is a tombstone other than the one seen.
const FILL: &str = "\
local there = redis.call('GETRANGE', KEYS[1], 0, 8)
if string.sub(there, 1, 1) == 'T' and there ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1";

/// Deletes first: a server without memory lets a script go on that has begun to write.
const FORGET: &str = "\
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// Writes for ever.
pub(super) async fn write(shared: Arc<Shared>) {
    loop {
        match shared.queue.next().await {
            Work::Fills(fills) => keep(&shared, fills).await,
            Work::Order(order) => carry_out(&shared, order).await,
            Work::Renew => renew(&shared).await,
        }
    }
}

async fn keep(shared: &Shared, mut fills: Vec<Fill>) {
    let all = fills.len();
    fills.retain(|fill| fill.stamp.begun.elapsed() < FILLED_WITHIN);
    shared.stats.write_dropped.add((all - fills.len()) as u64);
    let Some(link) = shared.link.borrow().clone() else {
        shared.stats.write_dropped.add(fills.len() as u64);
        return;
    };
    let commands: Vec<_> = fills.iter().map(|fill| fill_command(shared, fill)).collect();
    drop(fills);
    for answer in join_all(commands.iter().map(|command| link.write(command))).await {
        match answer {
            Ok(Value::Int(1)) => shared.stats.written.inc(),
            Ok(_) => shared.stats.write_refused.inc(),
            Err(error) => {
                shared.stats.write_dropped.inc();
                if error.is_unrecoverable_error() || error.is_io_error() {
                    shared.lose(&link, &error);
                } else {
                    tracing::debug!(%error, "the cache tier refuses a value");
                }
            }
        }
    }
}

fn fill_command(shared: &Shared, fill: &Fill) -> Cmd {
    let seen = fill.stamp.tombstone.map(value::tombstone);
    let mut command = redis::cmd("EVAL");
    command.arg(FILL).arg(1).arg(shared.name(&fill.key));
    command.arg(seen.as_ref().map_or(&[][..], |seen| &seen[..]));
    command.arg([&value::head(fill.position)[..], &fill.value].concat());
    command.arg(milliseconds(fill.ttl));
    command
}

async fn carry_out(shared: &Shared, order: Order) {
    while !shared.queue.is_overrun() {
        let link = shared.linked().await;
        match attempt(shared, &link, &order.what).await {
            Ok(()) => {
                shared.queue.done(&order.what);
                shared.stats.published.inc();
                // Nobody may be waiting.
                let _nobody = order.told.send(());
                return;
            }
            Err(error) => shared.lose(&link, &error),
        }
    }
}

async fn attempt(shared: &Shared, link: &Link, what: &What) -> RedisResult<()> {
    match what {
        What::Purge { message } => {
            let news = step(shared, link, &Task::Purge(message.clone())).await?;
            shared.tell(news);
        }
        What::Forget { keys, message } => {
            let mark: [u8; 8] = rand::random();
            let commands = keys.iter().map(|key| {
                let mut command = redis::cmd("EVAL");
                command.arg(FORGET).arg(1).arg(shared.name(key));
                command.arg(&value::tombstone(mark)[..]).arg(milliseconds(TOMBSTONE_STAYS));
                command
            });
            let commands: Vec<_> = commands.collect();
            try_join_all(commands.iter().map(|command| link.write(command))).await?;
            // The others must not find the old value after they were told.
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(&shared.names.channel).arg(forgotten(shared.sender, message));
            link.write(&publish).await?;
        }
    }
    Ok(())
}

async fn renew(shared: &Shared) {
    loop {
        let link = shared.linked().await;
        match step(shared, &link, &Task::Renew).await {
            Ok(news) => {
                // Before the others are told, so that they keep what they fill from then on.
                shared.queue.renewed();
                shared.tell(news);
                return;
            }
            Err(error) => shared.lose(&link, &error),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
