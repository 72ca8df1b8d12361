//! Clients: one that writes exact bytes over HTTP/1.1 and reads exact answers, and one for HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wait::soon;

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's text; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// One HTTP/1.1 connection.
pub(crate) struct Http1 {
    stream: TcpStream,
    read: BytesMut,
}

impl Http1 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = soon("connect", TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|e| panic!("connecting to {address}: {e}"));
        stream.set_nodelay(true).unwrap();
        Self { stream, read: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        soon("write", self.stream.write_all(bytes)).await
    }

    /// Sends a GET and reads the answer.
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
        self.answer().await
    }

    /// [`Self::get`], for connections that may be gone.
    pub(crate) async fn try_get(&mut self, path: &str) -> Option<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        self.try_send(request.as_bytes()).await.ok()?;
        self.try_answer("GET").await
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// The next final answer to a request of this method.
    pub(crate) async fn answer_to(&mut self, method: &str) -> Answer {
        match self.try_answer(method).await {
            Some(answer) => answer,
            None => panic!("the connection ended before a whole answer; read {:?}", self.read),
        }
    }

    /// None if the connection ends before the answer is whole.
    pub(crate) async fn try_answer(&mut self, method: &str) -> Option<Answer> {
        loop {
            let (status, headers) = self.head().await?;
            if (100..200).contains(&status) {
                continue;
            }
            let empty = method == "HEAD" || status == 204 || status == 304;
            let (body, trailers) = match empty {
                true => (Bytes::new(), HeaderMap::new()),
                false => self.body(&headers).await?,
            };
            return Some(Answer { status, headers, body, trailers });
        }
    }

    /// The next head, interim ones included.
    pub(crate) async fn head(&mut self) -> Option<(u16, HeaderMap)> {
        let line = self.line().await?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {line:?}"));
        Some((status, self.fields().await?))
    }

    async fn fields(&mut self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(headers);
            }
            let (name, value) = line.split_once(':').expect("a header has a colon");
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
        }
    }

    /// The body and trailers that go with a head; None if the connection ends before.
    pub(crate) async fn body(&mut self, headers: &HeaderMap) -> Option<(Bytes, HeaderMap)> {
        if let Some(length) = headers.get("content-length") {
            let length: usize = length.to_str().unwrap().parse().unwrap();
            return Some((self.exactly(length).await?, HeaderMap::new()));
        }
        if headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
            let mut body = BytesMut::new();
            loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(size.split(';').next()?, 16).unwrap();
                if size == 0 {
                    return Some((body.freeze(), self.fields().await?));
                }
                body.extend_from_slice(&self.exactly(size).await?);
                assert_eq!(self.line().await?, "", "a chunk ends with CRLF");
            }
        }
        Some((self.rest().await, HeaderMap::new()))
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|w| w == b"\r\n") {
                let line = self.read.split_to(end);
                self.read.advance(2);
                return Some(String::from_utf8(line.to_vec()).unwrap());
            }
            self.more().await?;
        }
    }

    /// Exactly so many bytes.
    pub(crate) async fn exactly(&mut self, n: usize) -> Option<Bytes> {
        while self.read.len() < n {
            self.more().await?;
        }
        Some(self.read.split_to(n).freeze())
    }

    /// Everything until the other end closes.
    pub(crate) async fn rest(&mut self) -> Bytes {
        while self.more().await.is_some() {}
        self.read.split().freeze()
    }

    /// Reads and forgets so many bytes; how many came before the end.
    pub(crate) async fn skip(&mut self, n: u64) -> u64 {
        let mut left = n;
        loop {
            let had = left.min(self.read.len() as u64);
            self.read.advance(usize::try_from(had).unwrap());
            left -= had;
            if left == 0 || self.more().await.is_none() {
                return n - left;
            }
        }
    }

    async fn more(&mut self) -> Option<()> {
        self.read.reserve(64 * 1024);
        match soon("read", self.stream.read_buf(&mut self.read)).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }

    /// Waits for the other end to close; nothing may come before.
    pub(crate) async fn closed(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "expected the end, got {rest:?}");
    }

    /// Ends our direction, if the other end has not ended both.
    pub(crate) async fn finish(&mut self) {
        let _ended = self.stream.shutdown().await;
    }
}

/// GET on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, &[], b"").await
}

/// Any request on a connection of its own. Without a `host` header it is for `test`.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str("host: test\r\n");
    }
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut connection = Http1::connect(address).await;
    connection.send(&head).await;
    connection.send_bytes(body).await;
    connection.answer_to(method).await
}

/// A request's body for [`Http2`].
pub(crate) type OutBody = BoxBody<Bytes, Infallible>;

/// One HTTP/2 connection with prior knowledge.
#[derive(Clone)]
pub(crate) struct Http2 {
    sender: http2::SendRequest<OutBody>,
}

impl Http2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = soon("h2 handshake", handshake).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let uri = format!("http://test{path}");
        self.send(Request::get(uri).body(Bytes::new()).unwrap()).await
    }

    pub(crate) async fn send(&mut self, request: Request<Bytes>) -> Answer {
        let request = request.map(|bytes| Full::new(bytes).boxed());
        let (head, body) = self.open(request).await.unwrap().into_parts();
        let body = soon("h2 body", body.collect()).await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
        }
    }

    /// Sends a request and waits for the head.
    pub(crate) async fn open(
        &mut self,
        request: Request<OutBody>,
    ) -> hyper::Result<Response<Incoming>> {
        soon("h2 connection", self.sender.ready()).await?;
        soon("h2 response", self.sender.send_request(request)).await
    }
}
