//! SETTINGS (RFC 9113 section 6.5).

use smallvec::SmallVec;

use super::frame::{Fault, MAX_31_BITS, MAX_FRAME_SIZE, Reason, SETTINGS, put_head};
use super::hpack::DEFAULT_TABLE_SIZE;
use crate::hcm::HcmConfig;

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE_ID: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
/// RFC 8441 section 3.
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// The window of a connection, and of a stream before anything else was said.
pub(super) const DEFAULT_WINDOW: u32 = 65_535;

/// Settings in one frame at the most; a peer has six to say.
const MOST: usize = 100;

/// What a client said that matters to us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) table_size: Option<u32>,
    pub(super) initial_window: Option<u32>,
    pub(super) max_frame_size: Option<u32>,
}

impl Changes {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Fault> {
        if !payload.len().is_multiple_of(6) {
            return Err(Fault::size("a setting is cut off"));
        }
        if payload.len() > MOST * 6 {
            return Err(Fault::Connection(Reason::ENHANCE_YOUR_CALM, "too many settings"));
        }
        let mut changes = Self::default();
        for setting in payload.chunks_exact(6) {
            let [i1, i0, v3, v2, v1, v0] = *setting else { continue };
            let value = u32::from_be_bytes([v3, v2, v1, v0]);
            match u16::from_be_bytes([i1, i0]) {
                HEADER_TABLE_SIZE => changes.table_size = Some(value),
                ENABLE_PUSH if value > 1 => return Err(Fault::protocol("ENABLE_PUSH is no flag")),
                INITIAL_WINDOW_SIZE if value > MAX_31_BITS => {
                    let reason = Reason::FLOW_CONTROL_ERROR;
                    return Err(Fault::Connection(reason, "INITIAL_WINDOW_SIZE is too large"));
                }
                INITIAL_WINDOW_SIZE => changes.initial_window = Some(value),
                MAX_FRAME_SIZE_ID if !(1 << 14..1 << 24).contains(&value) => {
                    return Err(Fault::protocol("MAX_FRAME_SIZE is out of range"));
                }
                MAX_FRAME_SIZE_ID => changes.max_frame_size = Some(value),
                _ => {}
            }
        }
        Ok(changes)
    }
}

/// Appends our own settings.
pub(super) fn put_own(out: &mut Vec<u8>, config: &HcmConfig) {
    let options = &config.http2;
    let mut settings = SmallVec::<[(u16, u32); 5]>::from_slice(&[
        (MAX_CONCURRENT_STREAMS, options.max_concurrent_streams),
        (INITIAL_WINDOW_SIZE, options.initial_stream_window_size),
        (MAX_HEADER_LIST_SIZE, config.max_request_headers_bytes),
    ]);
    if options.hpack_table_size != DEFAULT_TABLE_SIZE {
        settings.push((HEADER_TABLE_SIZE, options.hpack_table_size));
    }
    if options.allow_connect {
        settings.push((ENABLE_CONNECT_PROTOCOL, 1));
    }
    put_head(out, settings.len() * 6, (SETTINGS, 0), 0);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    const { assert!(MAX_FRAME_SIZE == 1 << 14, "the size that needs no setting") };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(settings: &[(u16, u32)]) -> Result<Changes, Fault> {
        let bytes: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        Changes::parse(&bytes)
    }

    #[test]
    fn what_matters_is_read_and_the_last_word_counts() {
        let all = [(1, 0), (2, 1), (3, 5), (4, 7), (4, 8), (5, 16_384), (6, 9), (0xff, u32::MAX)];
        let expected =
            Changes { table_size: Some(0), initial_window: Some(8), max_frame_size: Some(16_384) };
        assert_eq!(parse(&all).unwrap(), expected);
        assert_eq!(parse(&[]).unwrap(), Changes::default());
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for (id, value) in [(2, 2), (4, 1 << 31), (5, 16_383), (5, 1 << 24)] {
            assert!(parse(&[(id, value)]).is_err(), "{id} {value}");
        }
        assert!(Changes::parse(&[0; 7]).is_err());
        assert!(parse(&[(9, 9); 101]).is_err());
    }
}
