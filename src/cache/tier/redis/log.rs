//! The log of purges as this proxy has seen it, and the script that reads and writes it in the server.
//!
//! In the server it is one hash, so that it is lost as a whole or not at all: `era`, `last`, and a field
//! for each of the newest purges, by number. One script does everything, so that whoever writes learns
//! in the same step what others wrote.

use std::collections::VecDeque;

use bytes::Bytes;
use redis::{Cmd, Value};

use crate::cache::tier::Position;

/// Purges that are kept. A value that comes of a fill before the oldest is of no use.
const KEEP: usize = 4096;

/// Arguments: era and number seen, and the entry there; a fresh era; how many to keep; what to do; the
/// entry to add; channel and notice. A log that is gone, behind what was seen or other than it was begins
/// a new era. What is deleted is deleted first: a server without memory lets a script go on that has
/// begun to write.
const SCRIPT: &str = "\
local key, seen, keep = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[5])
local era = redis.call('HGET', key, 'era')
local last = tonumber(redis.call('HGET', key, 'last') or '0')
local told = false
local function is_other()
  if not era or ARGV[6] == 'renew' then return true end
  if era ~= ARGV[1] then return false end
  if last < seen then return true end
  local there = redis.call('HGET', key, string.format('%d', seen))
  return ARGV[3] ~= '' and there and there ~= ARGV[3]
end
if is_other() then
  redis.call('DEL', key)
  era, last, told = ARGV[4], 0, true
  redis.call('HSET', key, 'era', era, 'last', '0')
end
if ARGV[6] == 'purge' then
  redis.call('HDEL', key, string.format('%d', last + 1 - keep))
  last, told = last + 1, true
  redis.call('HSET', key, 'last', string.format('%d', last), string.format('%d', last), ARGV[7])
end
if told then redis.call('PUBLISH', ARGV[8], ARGV[9]) end
local first = 1
if era == ARGV[1] then first = seen + 1 end
if first < last + 1 - keep then first = last + 1 - keep end
local entries = {}
for number = first, last do
  entries[#entries + 1] = redis.call('HGET', key, string.format('%d', number))
end
return {era, last, entries}";

/// What the script is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Read what is new.
    Sync,
    /// Add a message.
    Purge(Bytes),
    /// Begin a new era.
    Renew,
}

/// What a step brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Purges of other proxies.
    pub(super) messages: Vec<Bytes>,
    /// Whether there were others, or something happened that no message tells.
    pub(super) missed: bool,
}

/// An answer that is none of the script's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbled;

/// The names in the server.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) log: String,
    pub(super) channel: String,
    /// Tells the others to look at the log.
    pub(super) notice: Vec<u8>,
}

/// The log as this proxy has seen it.
#[derive(Debug)]
pub(super) struct Log {
    /// Whose own entries are no news.
    sender: [u8; 8],
    position: Option<Position>,
    /// The newest entries up to the position: the sender, then the message.
    entries: VecDeque<Bytes>,
}

impl Log {
    pub(super) fn new(sender: [u8; 8]) -> Self {
        Self { sender, position: None, entries: VecDeque::new() }
    }

    pub(super) const fn position(&self) -> Option<Position> {
        self.position
    }

    /// The purges since a place in the log; none if they are not known.
    pub(super) fn since(&self, place: Position) -> Option<Vec<Bytes>> {
        let seen = self.position?;
        if place.era != seen.era {
            return None;
        }
        // Another proxy may have seen more.
        let later = usize::try_from(seen.number.saturating_sub(place.number)).ok()?;
        let from = self.entries.len().checked_sub(later)?;
        Some(self.entries.range(from..).map(message).collect())
    }

    /// The command that does a step. Its answer goes to [`Self::apply`] before there is another.
    pub(super) fn command(&self, names: &Names, task: &Task) -> Cmd {
        let era = self.position.as_ref().map_or(&[][..], |seen| &seen.era[..]);
        let number = self.position.map_or(0, |seen| seen.number);
        let (task, entry) = match task {
            Task::Sync => ("sync", Vec::new()),
            Task::Renew => ("renew", Vec::new()),
            Task::Purge(message) => ("purge", [&self.sender[..], message].concat()),
        };
        let fresh: [u8; 8] = rand::random();
        let mut command = redis::cmd("EVAL");
        command.arg(SCRIPT).arg(1).arg(&names.log).arg(era).arg(number);
        command.arg(self.entries.back().map_or(&[][..], |entry| &entry[..]));
        command.arg(&fresh[..]).arg(KEEP).arg(task).arg(entry);
        command.arg(&names.channel).arg(&names.notice[..]);
        command
    }

    /// Takes over what the script answered.
    pub(super) fn apply(&mut self, answer: &Value) -> Result<News, Garbled> {
        let (position, entries) = parse(answer)?;
        let new = entries.len() as u64;
        let follows = self.position.is_some_and(|seen| {
            seen.era == position.era && seen.number.checked_add(new) == Some(position.number)
        });
        let mut news = News { missed: !follows && self.position.is_some(), ..News::default() };
        if !follows {
            self.entries.clear();
        }
        let foreign = entries.iter().filter(|entry| !entry.starts_with(&self.sender));
        news.messages = foreign.map(message).collect();
        self.position = Some(position);
        self.entries.extend(entries);
        self.entries.drain(..self.entries.len().saturating_sub(KEEP));
        Ok(news)
    }
}

fn message(entry: &Bytes) -> Bytes {
    entry.slice(8..)
}

fn parse(answer: &Value) -> Result<(Position, Vec<Bytes>), Garbled> {
    let Value::Array(parts) = answer else { return Err(Garbled) };
    let [Value::BulkString(era), Value::Int(last), Value::Array(entries)] = &parts[..] else {
        return Err(Garbled);
    };
    let era = era[..].try_into().ok().ok_or(Garbled)?;
    let number = u64::try_from(*last).ok().ok_or(Garbled)?;
    let entries = entries.iter().map(|entry| match entry {
        Value::BulkString(entry) if entry.len() >= 8 => Ok(Bytes::copy_from_slice(entry)),
        _ => Err(Garbled),
    });
    let entries: Vec<_> = entries.collect::<Result<_, _>>()?;
    if entries.len() as u64 > number {
        return Err(Garbled);
    }
    Ok((Position { era, number }, entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 8] = *b"ownownow";

    fn answer(era: &[u8; 8], last: i64, entries: &[&str]) -> Value {
        let entries = entries.iter().map(|e| Value::BulkString(e.as_bytes().to_vec())).collect();
        let parts = [Value::BulkString(era.to_vec()), Value::Int(last), Value::Array(entries)];
        Value::Array(parts.to_vec())
    }

    fn at(number: u64) -> Position {
        Position { era: *b"era1era1", number }
    }

    fn since(log: &Log, place: Position) -> Option<Vec<String>> {
        let purges = log.since(place)?;
        Some(purges.iter().map(|p| String::from_utf8(p.to_vec()).unwrap()).collect())
    }

    #[test]
    fn values_are_judged_by_the_purges_since_and_not_used_when_these_are_unknown() {
        let mut log = Log::new(OWN);
        assert_eq!(since(&log, at(0)), None);
        let first = answer(b"era1era1", 12, &["otherothx", "ownownowy"]);
        let news = log.apply(&first).unwrap();
        assert!(!news.missed && news.messages == ["x"]);
        let second = answer(b"era1era1", 13, &["otherothz"]);
        let news = log.apply(&second).unwrap();
        assert!(!news.missed && news.messages == ["z"]);
        assert_eq!(since(&log, at(10)).unwrap(), ["x", "y", "z"]);
        assert_eq!(since(&log, at(12)).unwrap(), ["z"]);
        assert!(since(&log, at(13)).unwrap().is_empty() && since(&log, at(99)).unwrap().is_empty());
        assert_eq!(since(&log, at(9)), None, "what came before the log is not known");
        assert_eq!(since(&log, Position { era: *b"era2era2", number: 13 }), None);
    }

    #[test]
    fn a_gap_and_a_new_era_are_told() {
        let mut log = Log::new(OWN);
        log.apply(&answer(b"era1era1", 2, &["otherotha", "otherothb"])).unwrap();
        assert!(log.apply(&answer(b"era1era1", 9, &["otherothi"])).unwrap().missed);
        assert_eq!(since(&log, at(8)).unwrap(), ["i"]);
        assert_eq!(since(&log, at(7)), None);
        assert!(log.apply(&answer(b"era2era2", 0, &[])).unwrap().missed);
        assert_eq!(since(&log, at(9)), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut log = Log::new(OWN);
        for number in 1..=5000 {
            log.apply(&answer(b"era1era1", number, &["otherotha"])).unwrap();
        }
        assert_eq!(log.since(at(5000 - 4096)).unwrap().len(), KEEP);
        assert_eq!(log.since(at(5000 - 4097)), None);
    }

    #[test]
    fn garbage_is_refused_and_changes_nothing() {
        let mut log = Log::new(OWN);
        log.apply(&answer(b"era1era1", 1, &["otherotha"])).unwrap();
        for bad in [
            Value::Nil,
            Value::Int(3),
            Value::Array(vec![Value::Nil; 3]),
            answer(b"era1era1", -1, &[]),
            answer(b"era1era1", 1, &["otherotha", "otherotha"]),
            answer(b"era1era1", 2, &["short"]),
        ] {
            assert_eq!(log.apply(&bad), Err(Garbled));
        }
        assert_eq!(log.position(), Some(at(1)));
    }
}
