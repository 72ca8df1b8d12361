//! Bytes as a resource of one type: audit, decode, compile.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| nuncio_fuzz::compile(nuncio_fuzz::EXTENSION, data));
