//! The bodies that gRPC-Web has instead of gRPC's.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::text::{Decoder, Encoder, PREFIX};
use crate::exchange::{Body, BodyError};

/// The flag of the frame that trailers are in.
const TRAILERS: u8 = 0x80;

/// A request's body that comes in base64, without it.
pub(super) struct Decoded {
    inner: Body,
    decoder: Decoder,
}

impl Decoded {
    pub(super) fn new(inner: Body) -> Self {
        Self { inner, decoder: Decoder::default() }
    }
}

impl http_body::Body for Decoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let decoded = match ready!(Pin::new(&mut this.inner).poll_frame(cx)?) {
                None => {
                    let whole = this.decoder.finish().map_err(|_open| BodyError::Base64);
                    return Poll::Ready(whole.err().map(Err));
                }
                Some(frame) => match frame.into_data() {
                    Ok(piece) => this.decoder.decode(&piece),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            };
            let decoded = decoded.map_err(|_invalid| BodyError::Base64)?;
            if !decoded.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(decoded))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && self.decoder.finish().is_ok()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A response's body with its trailers as the last frame, and in base64 if it has an encoder.
pub(super) struct Framed {
    inner: Body,
    encoder: Option<Encoder>,
    ended: bool,
}

impl Framed {
    pub(super) fn new(inner: Body, as_text: bool) -> Self {
        Self { inner, encoder: as_text.then(Encoder::default), ended: false }
    }

    /// What is sent of the last bytes.
    fn end(&mut self, bytes: Bytes) -> Bytes {
        self.ended = true;
        let Some(encoder) = &mut self.encoder else { return bytes };
        let open = encoder.finish();
        let text = [encoder.encode(&bytes), encoder.finish()];
        [&open[..], &text[0], &text[1]].concat().into()
    }
}

impl http_body::Body for Framed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        while !this.ended {
            let bytes = match ready!(Pin::new(&mut this.inner).poll_frame(cx)?) {
                None => this.end(Bytes::new()),
                Some(frame) => match frame.into_data() {
                    Ok(piece) => match &mut this.encoder {
                        Some(encoder) => encoder.encode(&piece),
                        None => piece,
                    },
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        this.end(trailers_frame(&trailers))
                    }
                },
            };
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Trailers as a message.
fn trailers_frame(trailers: &HeaderMap) -> Bytes {
    let mut frame = BytesMut::zeroed(PREFIX);
    for (name, value) in trailers {
        frame.put_slice(name.as_str().as_bytes());
        frame.put_u8(b':');
        frame.put_slice(value.as_bytes());
        frame.put_slice(b"\r\n");
    }
    let length = u32::try_from(frame.len() - PREFIX).unwrap_or(u32::MAX);
    frame[0] = TRAILERS;
    frame[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}
