//! A client that writes frames as it likes, and reads what comes.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::harness::Http1;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// A whole request without a body.
pub(super) const WHOLE: u8 = END_STREAM | END_HEADERS;

pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const STREAM_CLOSED: u32 = 5;
pub(super) const FRAME_SIZE_ERROR: u32 = 6;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const COMPRESSION_ERROR: u32 = 9;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame from the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Bytes,
}

impl Frame {
    /// The number at the front of the payload, or after its first `skip` bytes.
    pub(super) fn number(&self, skip: usize) -> u32 {
        u32::from_be_bytes(self.payload[skip..skip + 4].try_into().unwrap())
    }

    /// The status of a response's head.
    pub(super) fn status(&self) -> u16 {
        assert_eq!(self.kind, HEADERS, "{self:?}");
        let mut block = &self.payload[..];
        // Changes of the table's size come first.
        while block[0] & 0xe0 == 0x20 {
            let long = block[0] & 0x1f == 0x1f;
            let more = block[1..].iter().position(|byte| byte & 0x80 == 0).unwrap();
            block = &block[if long { more + 2 } else { 1 }..];
        }
        match block[0] {
            0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(block[0] - 0x88)],
            _ => std::str::from_utf8(&block[2..5]).unwrap().parse().unwrap(),
        }
    }
}

/// A connection that was greeted, but for what is sent on it.
pub(super) struct Wire(pub(super) Http1);

impl Wire {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self::with_settings(address, &[]).await
    }

    pub(super) async fn with_settings(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut wire = Self(Http1::connect(address).await);
        wire.0.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        wire.send(&self::settings(settings)).await;
        wire
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.send_bytes(bytes).await;
    }

    /// Sends what the other end may not want to the last.
    pub(super) async fn try_send(&mut self, bytes: &[u8]) {
        let _gone = self.0.try_send(bytes).await;
    }

    /// The next frame; `None` at the end of the connection.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let head = self.0.exactly(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = self.0.exactly(length.try_into().unwrap()).await?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of a kind; others are passed over.
    pub(super) async fn until(&mut self, kind: u8) -> Frame {
        let mut seen = Vec::new();
        while let Some(frame) = self.next().await {
            if frame.kind == kind {
                return frame;
            }
            seen.push((frame.kind, frame.stream));
        }
        panic!("the connection ended before a frame of kind {kind}; read {seen:?}");
    }

    /// The next answer's stream, status and body; `Err` is how a stream was reset.
    pub(super) async fn answer(&mut self) -> (u32, Result<(u16, Vec<u8>), u32>) {
        let (mut status, mut body) = (0, Vec::new());
        while let Some(frame) = self.next().await {
            match frame.kind {
                HEADERS if status == 0 => status = frame.status(),
                DATA => body.extend_from_slice(&frame.payload),
                RST_STREAM => return (frame.stream, Err(frame.number(0))),
                GOAWAY => panic!("GOAWAY {}", frame.number(4)),
                _ => continue,
            }
            if frame.flags & END_STREAM != 0 {
                return (frame.stream, Ok((status, body)));
            }
        }
        panic!("the connection ended before an answer");
    }

    /// Sends GET / on a stream and expects its answer next.
    pub(super) async fn serves(&mut self, stream: u32) {
        self.send(&get(stream)).await;
        let (id, answer) = self.answer().await;
        assert_eq!((id, answer.expect("an answer").0), (stream, 200));
    }

    /// Expects GOAWAY and the end, and returns the reason.
    pub(super) async fn goes_away(&mut self) -> u32 {
        let reason = self.until(GOAWAY).await.number(4);
        assert_eq!(self.next().await, None, "nothing follows GOAWAY");
        reason
    }

    /// A ping that is answered means that all before it was looked at.
    pub(super) async fn settle(&mut self) {
        self.send(&frame(PING, 0, 0, b"settling")).await;
        loop {
            let pong = self.until(PING).await;
            if pong.payload == b"settling"[..] {
                return;
            }
        }
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

pub(super) fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// Fields as literals, which no table knows.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fn string(text: &str) -> Vec<u8> {
        let mut coded = Vec::new();
        match u8::try_from(text.len()) {
            Ok(length @ ..127) => coded.push(length),
            _ => {
                coded.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    coded.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                coded.push(u8::try_from(rest).unwrap());
            }
        }
        coded.extend_from_slice(text.as_bytes());
        coded
    }
    fields.iter().flat_map(|(n, v)| [vec![0], string(n), string(v)].concat()).collect()
}

pub(super) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "test")];

pub(super) const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "test")];

/// GET / and an end.
pub(super) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &block(&GET))
}

/// The head of POST /, with other fields.
pub(super) fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&[&POST, more].concat()))
}

pub(super) fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, payload)
}

pub(super) fn last_data(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, payload)
}

pub(super) fn window_update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}
