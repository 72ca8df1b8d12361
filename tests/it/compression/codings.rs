//! Codings for clients and origins, straight from the libraries of each: what a filter makes is read without
//! our own codecs.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use zstd_safe::{DCtx, InBuffer, OutBuffer};

pub(super) const ALL: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

pub(super) fn encode(coding: &str, bytes: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(bytes).unwrap();
            encoder.into_inner()
        }
        "zstd" => {
            let mut made = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
            zstd_safe::compress(&mut made, bytes, 3).unwrap();
            made
        }
        other => panic!("{other:?} is no coding"),
    }
}

/// A whole body; none if it is not whole, or broken.
pub(super) fn decode(coding: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let (decoded, is_whole) = decode_some(coding, bytes);
    is_whole.then_some(decoded)
}

/// What a reader has of the beginning of a body.
pub(super) fn so_far(coding: &str, bytes: &[u8]) -> String {
    String::from_utf8(decode_some(coding, bytes).0).unwrap()
}

fn decode_some(coding: &str, bytes: &[u8]) -> (Vec<u8>, bool) {
    match coding {
        "gzip" => read(GzDecoder::new(bytes)),
        "deflate" => read(ZlibDecoder::new(bytes)),
        "br" => read(brotli::Decompressor::new(bytes, 4096)),
        "zstd" => unzstd(bytes),
        other => panic!("{other:?} is no coding"),
    }
}

fn read(mut decoder: impl Read) -> (Vec<u8>, bool) {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return (all, true),
            Ok(n) => all.extend_from_slice(&piece[..n]),
            Err(_) => return (all, false),
        }
    }
}

fn unzstd(bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut context = DCtx::create();
    let mut input = InBuffer::around(bytes);
    let (mut all, mut piece) = (Vec::new(), vec![0; 1 << 17]);
    loop {
        let mut output = OutBuffer::around(&mut piece[..]);
        let Ok(hint) = context.decompress_stream(&mut output, &mut input) else {
            return (all, false);
        };
        let made = output.pos();
        all.extend_from_slice(&piece[..made]);
        if hint == 0 || made == 0 && input.pos == bytes.len() {
            return (all, hint == 0 && input.pos == bytes.len());
        }
    }
}

#[test]
fn others_read_what_others_write() {
    for coding in ALL {
        let coded = encode(coding, b"some text, some text");
        assert_eq!(
            decode(coding, &coded).as_deref(),
            Some(&b"some text, some text"[..]),
            "{coding}"
        );
        assert_eq!(decode(coding, &coded[..coded.len() - 1]), None, "{coding}");
    }
}
