//! Reads header blocks.

use std::collections::VecDeque;

use super::fields::{STATIC_ENTRIES, static_field, static_name};
use super::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, Error, Field, Name, Value, huffman};

/// The reading half of a connection's header compression.
#[derive(Debug)]
pub(in crate::hcm::http2) struct Decoder {
    /// Newest first.
    entries: VecDeque<Field>,
    size: usize,
    /// Size at which entries are evicted.
    max_size: usize,
    /// The largest `max_size` that the peer may choose.
    limit: usize,
    /// Where coded strings are decoded.
    scratch: Vec<u8>,
}

impl Decoder {
    pub(in crate::hcm::http2) fn new() -> Self {
        let size = DEFAULT_TABLE_SIZE as usize;
        Self { entries: VecDeque::new(), size: 0, max_size: size, limit: size, scratch: Vec::new() }
    }

    /// The peer knows now how large its table may be.
    pub(in crate::hcm::http2) fn set_limit(&mut self, limit: u32) {
        self.limit = limit as usize;
    }

    /// Hands over the fields of a whole block.
    pub(in crate::hcm::http2) fn decode(
        &mut self,
        mut block: &[u8],
        mut each: impl FnMut(Field),
    ) -> Result<(), Error> {
        let mut may_resize = true;
        while let Some(first) = block.first().copied() {
            if first & 0xe0 == 0x20 {
                let size = integer(&mut block, 5)?;
                if !may_resize || size > self.limit {
                    return Err(Error::TableSize);
                }
                self.max_size = size;
                self.evict(0);
                continue;
            }
            may_resize = false;
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                each(self.field(index)?);
                continue;
            }
            let is_kept = first & 0x40 != 0;
            let index = integer(&mut block, if is_kept { 6 } else { 4 })?;
            let name = match index {
                0 => Name::parse(string(&mut block, &mut self.scratch)?),
                index => self.name(index)?,
            };
            let value = Value::parse(string(&mut block, &mut self.scratch)?);
            let field = Field { name, value };
            if is_kept {
                self.insert(field.clone());
            }
            each(field);
        }
        // One large value shall not stay for ever.
        if self.scratch.capacity() > 1024 {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    fn field(&self, index: usize) -> Result<Field, Error> {
        match index.checked_sub(STATIC_ENTRIES + 1) {
            None => static_field(index).ok_or(Error::Index),
            Some(at) => self.entries.get(at).cloned().ok_or(Error::Index),
        }
    }

    fn name(&self, index: usize) -> Result<Name, Error> {
        match index.checked_sub(STATIC_ENTRIES + 1) {
            None => static_name(index).ok_or(Error::Index),
            Some(at) => self.entries.get(at).map(|field| field.name.clone()).ok_or(Error::Index),
        }
    }

    fn insert(&mut self, field: Field) {
        let size = field.len() + ENTRY_OVERHEAD;
        self.evict(size);
        if size <= self.max_size {
            self.size += size;
            self.entries.push_front(field);
        }
    }

    /// Makes room for so many bytes, if so many may be there at all.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.max_size {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.len() + ENTRY_OVERHEAD;
        }
    }
}

/// An integer whose first byte has `bits` bits of it (RFC 7541 section 5.1).
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Error> {
    let (first, mut rest) = block.split_first().ok_or(Error::Truncated)?;
    let most = (1usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        // Four bytes reach further than any block does.
        for shift in [0, 7, 14, 21, 28] {
            if shift == 28 {
                return Err(Error::Integer);
            }
            let (byte, after) = rest.split_first().ok_or(Error::Truncated)?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// A string (RFC 7541 section 5.2), decoded in `scratch` if it is coded.
fn string<'a, 'b: 'a>(block: &mut &'b [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Error> {
    let is_coded = block.first().ok_or(Error::Truncated)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Error::Truncated)?;
    *block = rest;
    if !is_coded {
        return Ok(text);
    }
    scratch.clear();
    huffman::decode(text, scratch)?;
    Ok(scratch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Pseudo;
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<String, Error> {
        let mut text = String::new();
        decoder.decode(block, |field| {
            let name = match field.name {
                Name::Pseudo(pseudo) => format!("{pseudo:?}"),
                Name::Header(name) => name.to_string(),
                Name::Malformed(length) => format!("?{length}"),
            };
            let value = match field.value {
                Value::Sound(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
                Value::Malformed(length) => format!("?{length}"),
            };
            text.push_str(&format!("{name}={value};"));
        })?;
        Ok(text)
    }

    /// RFC 7541 appendices C.3 and C.4: the same three requests, in plain strings and in coded ones.
    #[test]
    fn the_requests_of_the_rfc_are_read() {
        let plain = [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ];
        let coded = [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::new();
            let read: Vec<_> =
                blocks.iter().map(|block| read(&mut decoder, &bytes(block)).unwrap()).collect();
            assert_eq!(
                read,
                [
                    "Method=GET;Scheme=http;Path=/;Authority=www.example.com;",
                    "Method=GET;Scheme=http;Path=/;Authority=www.example.com;\
                     cache-control=no-cache;",
                    "Method=GET;Scheme=https;Path=/index.html;Authority=www.example.com;\
                     custom-key=custom-value;",
                ]
            );
            assert_eq!(decoder.size, 164);
        }
    }

    /// RFC 7541 appendix C.5: responses with a table of 256 bytes, which must evict.
    #[test]
    fn old_entries_make_room() {
        let mut decoder = Decoder::new();
        decoder.set_limit(256);
        let first =
            "3fe101 4803333032 580770726976617465 611d4d6f6e2c203231204f637420323031332032303a
                     31333a323120474d54 6e1768747470733a2f2f7777772e6578616d706c652e636f6d";
        read(&mut decoder, &bytes(first)).unwrap();
        assert_eq!((decoder.size, decoder.entries.len()), (222, 4));
        let second = read(&mut decoder, &bytes("4803333037c1c0bf")).unwrap();
        assert!(second.starts_with("Status=307;cache-control=private;date="), "{second}");
        assert_eq!((decoder.size, decoder.entries.len()), (222, 4));
        // One that does not fit at all leaves the table empty.
        let mut large = bytes("40 01 61 7f c9 01");
        large.extend([b'x'; 328]);
        read(&mut decoder, &large).unwrap();
        assert_eq!((decoder.size, decoder.entries.len()), (0, 0));
    }

    #[test]
    fn what_is_malformed_is_in_the_table_all_the_same() {
        let mut decoder = Decoder::new();
        let upper = read(&mut decoder, b"\x40\x03X-Y\x01a").unwrap();
        assert_eq!(upper, "?3=a;");
        assert_eq!(read(&mut decoder, b"\xbe").unwrap(), "?3=a;");
        assert_eq!(
            read(&mut decoder, b"\x40\x01a\x02\r\n\xbe\x0f\x2f\x01b").unwrap(),
            "a=?2;a=?2;a=b;"
        );
    }

    #[test]
    fn blocks_that_make_no_sense_are_refused() {
        for (block, error) in [
            (&b"\x80"[..], Error::Index),
            (b"\xbe", Error::Index),
            (b"\x7f\x80\x80\x80\x80\x01", Error::Integer),
            (b"\xff", Error::Truncated),
            (b"\x40", Error::Truncated),
            (b"\x40\x05abc", Error::Truncated),
            (b"\x41\x81\x00", Error::Huffman),
            (b"\x82\x20", Error::TableSize),
            (b"\x3f\xe2\x1f", Error::TableSize),
        ] {
            assert_eq!(read(&mut Decoder::new(), block), Err(error), "{block:x?}");
        }
        assert_eq!(read(&mut Decoder::new(), b"\x20\x3f\xe1\x1f\x82").unwrap(), "Method=GET;");
        assert_eq!(Name::parse(b":status"), Name::Pseudo(Pseudo::Status));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(block in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::new();
            let _ = decoder.decode(&block, |_| {});
            prop_assert!(decoder.size <= decoder.max_size);
            let held: usize = decoder.entries.iter().map(|e| e.len() + ENTRY_OVERHEAD).sum();
            prop_assert_eq!(held, decoder.size);
        }
    }
}
