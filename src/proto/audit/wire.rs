//! The protobuf wire format, field by field, without copies.

/// The largest field number, 2^29 - 1.
const MAX_NUMBER: u64 = (1 << 29) - 1;

/// How deep the long deprecated groups may nest.
const MAX_GROUPS: usize = 100;

/// What one field carries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    Group,
}

impl Payload<'_> {
    /// Whether this is how the default value of a scalar looks when written out.
    pub(super) fn is_default(self) -> bool {
        match self {
            Payload::Varint(n) | Payload::Fixed64(n) => n == 0,
            Payload::Fixed32(n) => n == 0,
            Payload::Bytes(bytes) => bytes.is_empty(),
            Payload::Group => false,
        }
    }
}

/// The fields of a message in the order of its bytes. Ends after the first error.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

const TRUNCATED: &str = "the bytes end within a field";

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn field(&mut self) -> Result<(u32, Payload<'a>), &'static str> {
        let (number, wire_type) = self.key()?;
        let payload = match wire_type {
            3 => {
                self.skip_group(number)?;
                Payload::Group
            }
            4 => return Err("a group ends that was not begun"),
            wire_type => self.payload(wire_type)?,
        };
        Ok((number, payload))
    }

    fn key(&mut self) -> Result<(u32, u8), &'static str> {
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 || number > MAX_NUMBER {
            return Err("a field number is not in 1..=536870911");
        }
        let number = u32::try_from(number).ok().ok_or("a field number is too large")?;
        // Three bits always fit.
        Ok((number, u8::try_from(key & 7).unwrap_or_default()))
    }

    fn payload(&mut self, wire_type: u8) -> Result<Payload<'a>, &'static str> {
        match wire_type {
            0 => self.varint().map(Payload::Varint),
            1 => self.array().map(|bytes| Payload::Fixed64(u64::from_le_bytes(bytes))),
            2 => {
                let len = usize::try_from(self.varint()?).ok().ok_or(TRUNCATED)?;
                let (bytes, rest) = self.rest.split_at_checked(len).ok_or(TRUNCATED)?;
                self.rest = rest;
                Ok(Payload::Bytes(bytes))
            }
            5 => self.array().map(|bytes| Payload::Fixed32(u32::from_le_bytes(bytes))),
            _ => Err("a wire type is not in 0..=5"),
        }
    }

    fn skip_group(&mut self, number: u32) -> Result<(), &'static str> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            match self.key()? {
                (number, 3) if open.len() < MAX_GROUPS => open.push(number),
                (_, 3) => return Err("groups are nested too deep"),
                (number, 4) if number == innermost => {
                    open.pop();
                }
                (_, 4) => return Err("a group ends that was not begun"),
                (_, wire_type) => {
                    self.payload(wire_type)?;
                }
            }
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        // Nearly all keys and lengths are one byte.
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(byte));
        }
        let mut value = 0;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                if i == 9 && byte > 1 {
                    return Err("a number does not fit in 64 bits");
                }
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { TRUNCATED } else { "a number does not fit in 64 bits" })
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Payload<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Result<(u32, Payload<'_>), &'static str>> {
        Reader::new(bytes).collect()
    }

    #[test]
    fn every_wire_type_is_read() {
        assert_eq!(all(&[0x08, 0x96, 0x01]), [Ok((1, Payload::Varint(150)))]);
        assert_eq!(all(&[0x15, 1, 0, 0, 0]), [Ok((2, Payload::Fixed32(1)))]);
        assert_eq!(all(&[0x11, 1, 0, 0, 0, 0, 0, 0, 0]), [Ok((2, Payload::Fixed64(1)))]);
        assert_eq!(all(&[0x12, 2, 7, 8]), [Ok((2, Payload::Bytes(&[7, 8])))]);
        assert_eq!(all(&[0x0b, 0x13, 0x08, 1, 0x14, 0x0c]), [Ok((1, Payload::Group))]);
    }

    #[test]
    fn damage_is_an_error_and_the_end() {
        let cases: [&[u8]; 10] = [
            &[0x80],
            &[0x08],
            &[0x00, 0x00],
            &[0x12, 3, 7],
            &[0x15, 1, 0],
            &[0x0c],
            &[0x0b, 0x14],
            &[0x0b],
            &[0x0e, 0],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        ];
        for bytes in cases {
            let read = all(bytes);
            assert!(read.len() == 1 && read[0].is_err(), "{bytes:?}: {read:?}");
        }
        assert!(all(&[0x0b; 1_000])[0].is_err());
    }
}
