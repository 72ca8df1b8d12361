//! HTTP/1.1 byte by byte: what is written to an upstream that follows a script, and what is made of
//! its answers.

use std::time::Duration;

use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::exchange::BodyError;

/// An upstream whose connections are handed over one by one.
pub(super) struct Wire {
    listener: TcpListener,
    pub(super) address: SocketAddr,
}

impl Wire {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub(super) async fn accept(&self) -> TcpStream {
        let accepting = tokio::time::timeout(Duration::from_secs(20), self.listener.accept());
        accepting.await.expect("in time").unwrap().0
    }
}

/// Reads until `end` has come.
pub(super) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut bytes = [0; 1024];
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes));
        let n = read.await.expect("in time").unwrap();
        assert!(n > 0, "the connection ended after {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
    text
}

/// A body that comes from a channel, and ends with it.
fn channel() -> (mpsc::Sender<Result<http_body::Frame<Bytes>, BodyError>>, Body) {
    let (sender, mut receiver) = mpsc::channel(8);
    let frames = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, Body::boxed(StreamBody::new(frames)))
}

fn data(text: &'static str) -> Result<http_body::Frame<Bytes>, BodyError> {
    Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes())))
}

/// Sends a request with such a body in a task of its own.
pub(super) fn spawn_send(
    local: &Arc<LocalCluster>,
    body: Body,
) -> tokio::task::JoinHandle<Result<(ResponseHead, Body), UpstreamError>> {
    spawn_head(local, head("/"), body)
}

/// The same with a head of one's own.
pub(super) fn spawn_head(
    local: &Arc<LocalCluster>,
    head: RequestHead,
    body: Body,
) -> tokio::task::JoinHandle<Result<(ResponseHead, Body), UpstreamError>> {
    let local = Arc::clone(local);
    tokio::spawn(async move {
        let permit = local.admit(RoutingPriority::Default).unwrap();
        let host = local.choose(&LbContext::default()).unwrap();
        local.send(&host, permit, head, body).await
    })
}

pub(super) async fn text(body: Body) -> Result<String, BodyError> {
    let bytes = body.collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_body_of_unknown_length_goes_in_chunks_with_its_trailers_if_they_pass() {
    for passes in [true, false] {
        goes_in_chunks(passes).await;
    }
}

async fn goes_in_chunks(passes: bool) {
    let wire = Wire::start().await;
    let options = json!({"http_protocol_options": {"enable_trailers": passes}});
    let (_manager, local) = local(wire.address, options);
    let (sender, body) = channel();
    let sending = spawn_send(&local, body);
    let mut stream = wire.accept().await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(
        head,
        "GET / HTTP/1.1\r\nhost: origin.example\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    sender.send(data("hello, chunked world")).await.unwrap();
    assert_eq!(read_until(&mut stream, "world\r\n").await, "14\r\nhello, chunked world\r\n");
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    trailers.insert("content-length", "5".parse().unwrap());
    sender.send(Ok(http_body::Frame::trailers(trailers))).await.unwrap();
    drop(sender);
    let end = if passes { "0\r\nx-sum: 1\r\n\r\n" } else { "0\r\n\r\n" };
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, end);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let (_, body) = sending.await.unwrap().unwrap();
    assert_eq!(text(body).await.unwrap(), "ok");
    assert_eq!(local.pools.idle_connections(), 1);
}

#[tokio::test]
async fn a_known_body_leaves_with_its_head_and_must_be_as_long_as_said() {
    let wire = Wire::start().await;
    let (_manager, local) = local(wire.address, json!({}));
    let sending = spawn_send(&local, Body::from("four"));
    let mut stream = wire.accept().await;
    let mut bytes = [0; 1024];
    let n = stream.read(&mut bytes).await.unwrap();
    let request = std::str::from_utf8(&bytes[..n]).unwrap();
    assert!(request.ends_with("content-length: 4\r\n\r\nfour"), "one packet: {request:?}");
    drop(stream);
    let error = sending.await.unwrap().unwrap_err();
    assert!(matches!(error, UpstreamError::Terminated), "a body is not sent twice: {error}");

    let sized = |text: &'static str, says: u64| {
        let body = Full::new(Bytes::from_static(text.as_bytes()));
        Body::boxed(Says(body, says))
    };
    for (body, says) in [("four", 5), ("four", 3)] {
        let sending = spawn_send(&local, sized(body, says));
        let _stream = wire.accept().await;
        let error = sending.await.unwrap().unwrap_err();
        assert!(matches!(error, UpstreamError::Protocol), "{says}: {error}");
    }
    assert_nothing_in_use(&local);
}

/// A body that lies about its length.
struct Says(Full<Bytes>, u64);

impl http_body::Body for Says {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx).map_err(|never| match never {})
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

#[tokio::test]
async fn answers_in_every_form_are_read_to_their_end() {
    let cases: [(&[&str], &str, usize); 7] = [
        (&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"], "hello", 1),
        (&["HTTP/1.1 200", " OK\r\ncontent-len", "gth: 5\r\n\r\nhe", "llo"], "hello", 1),
        (
            &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", "lo\r\n0\r\n\r\n"],
            "hello",
            1,
        ),
        (
            &[
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n4\r\nello\r\n0\r\nx: y\r\n\r\n",
            ],
            "hello",
            1,
        ),
        (
            &[
                "HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            ],
            "hello",
            1,
        ),
        (&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"], "hello", 0),
        (&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello and more"], "hello", 0),
    ];
    let wire = Wire::start().await;
    for (pieces, expected, kept) in cases {
        let (_manager, local) = local(wire.address, json!({}));
        let sending = spawn_send(&local, Body::Empty);
        let mut stream = wire.accept().await;
        stream.set_nodelay(true).unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let (_, body) = sending.await.unwrap().unwrap();
        assert_eq!(text(body).await.unwrap(), expected, "{pieces:?}");
        assert_eq!(local.pools.idle_connections(), kept, "{pieces:?}");
        assert_nothing_in_use(&local);
    }
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_the_connection_and_one_with_a_length_does_not() {
    let wire = Wire::start().await;
    for (head, whole) in
        [("", true), ("content-length: 9\r\n", false), ("transfer-encoding: chunked\r\n", false)]
    {
        let (_manager, local) = local(wire.address, json!({}));
        let sending = spawn_send(&local, Body::Empty);
        let mut stream = wire.accept().await;
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n5\r\nhello");
        stream.write_all(answer.as_bytes()).await.unwrap();
        drop(stream);
        let (_, body) = sending.await.unwrap().unwrap();
        assert_eq!(text(body).await.is_ok(), whole, "{head}");
        assert_eq!(local.pools.idle_connections(), 0);
        let broken = u64::from(!whole);
        assert_eq!(local.cluster().stats.upstream_rq_rx_reset.value(), broken, "{head}");
        assert_nothing_in_use(&local);
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_the_request_was_on_its_way_is_replaced_once() {
    let wire = Wire::start().await;
    let (_manager, local) = local(wire.address, json!({}));
    let first = spawn_send(&local, Body::Empty);
    let mut stream = wire.accept().await;
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    first.await.unwrap().unwrap();
    // The request gets there, and then nothing comes back: it may be sent again, but only once.
    let second = spawn_send(&local, Body::Empty);
    read_until(&mut stream, "\r\n\r\n").await;
    drop(stream);
    let mut again = wire.accept().await;
    read_until(&mut again, "\r\n\r\n").await;
    drop(again);
    assert!(matches!(second.await.unwrap().unwrap_err(), UpstreamError::Terminated));
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn what_must_not_be_sent_twice_is_not() {
    let wire = Wire::start().await;
    let (_manager, local) = local(wire.address, json!({}));
    let first = spawn_send(&local, Body::Empty);
    let mut stream = wire.accept().await;
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    first.await.unwrap().unwrap();
    let mut post = head("/");
    post.method = http::Method::POST;
    let sending = spawn_head(&local, post, Body::Empty);
    let request = read_until(&mut stream, "\r\n\r\n").await;
    assert!(request.contains("content-length: 0\r\n"), "{request}");
    drop(stream);
    assert!(matches!(sending.await.unwrap().unwrap_err(), UpstreamError::Terminated));
}

#[tokio::test]
async fn an_early_answer_lets_the_upload_go_on() {
    let wire = Wire::start().await;
    let (_manager, local) = local(wire.address, json!({}));
    let (sender, body) = channel();
    let sending = spawn_send(&local, body);
    let mut stream = wire.accept().await;
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").await.unwrap();
    let (_, mut response) = sending.await.unwrap().unwrap();
    // Nobody reads the response, and yet the request is sent.
    sender.send(data("late")).await.unwrap();
    read_until(&mut stream, "4\r\nlate\r\n").await;
    drop(sender);
    read_until(&mut stream, "0\r\n\r\n").await;
    stream.write_all(b"final").await.unwrap();
    let mut got = Vec::new();
    while let Some(frame) = response.frame().await {
        got.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    assert_eq!(got, b"firstfinal");
    assert_eq!(local.pools.idle_connections(), 1);
    assert_nothing_in_use(&local);
}

#[tokio::test]
async fn an_upload_that_breaks_off_ends_its_answer_too() {
    let wire = Wire::start().await;
    let (_manager, local) = local(wire.address, json!({}));
    let (sender, body) = channel();
    let sending = spawn_send(&local, body);
    let mut stream = wire.accept().await;
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").await.unwrap();
    let (_, response) = sending.await.unwrap().unwrap();
    sender.send(Err(BodyError::Timeout)).await.unwrap();
    assert!(matches!(text(response).await, Err(BodyError::Timeout)));
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "the connection is closed");
    until(|| local.cluster().stats.upstream_cx_active.value() == 0).await;
    assert_nothing_in_use(&local);
}
