//! What is stored under a key: a value with its place in the log of purges, or a tombstone.

use bytes::Bytes;

use crate::cache::tier::Position;

const VALUE: u8 = b'V';
const TOMBSTONE: u8 = b'T';
const HEAD: usize = 1 + 8 + 8;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Value(Position, Bytes),
    Tombstone([u8; 8]),
}

/// What a value begins with.
pub(super) fn head(position: Position) -> [u8; HEAD] {
    let mut head = [VALUE; HEAD];
    head[1..9].copy_from_slice(&position.era);
    head[9..].copy_from_slice(&position.number.to_be_bytes());
    head
}

pub(super) fn tombstone(mark: [u8; 8]) -> [u8; 9] {
    let mut stored = [TOMBSTONE; 9];
    stored[1..].copy_from_slice(&mark);
    stored
}

/// Reads what was stored; none if it is neither.
pub(super) fn read(stored: &Bytes) -> Option<Stored> {
    match *stored.first()? {
        VALUE => {
            let (era, rest) = stored[1..].split_first_chunk()?;
            let (number, _) = rest.split_first_chunk()?;
            let position = Position { era: *era, number: u64::from_be_bytes(*number) };
            Some(Stored::Value(position, stored.slice(HEAD..)))
        }
        TOMBSTONE => stored[1..].try_into().ok().map(Stored::Tombstone),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_and_anything_else_is_not() {
        let position = Position { era: *b"eraeraer", number: 258 };
        for value in [&b""[..], b"T", b"some value"] {
            let stored = Bytes::from([&head(position)[..], value].concat());
            let read_back = Stored::Value(position, Bytes::copy_from_slice(value));
            assert_eq!(read(&stored), Some(read_back));
            for cut in 0..HEAD {
                assert_eq!(read(&stored.slice(..cut)), None);
            }
        }
        let stored = Bytes::copy_from_slice(&tombstone(*b"markmark"));
        assert_eq!(read(&stored), Some(Stored::Tombstone(*b"markmark")));
        for other in [&b"Tmarkmar"[..], b"Tmarkmark2", b"v", b"hello"] {
            assert_eq!(read(&Bytes::from_static(other)), None);
        }
    }
}
