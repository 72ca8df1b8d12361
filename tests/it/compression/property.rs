//! Whatever a body is, however it is sent and read, and whatever it passes through: what is decoded is what
//! was meant.
//!
//! A random walk over ways through the proxy. What is sent follows from a request's path, so the origin knows
//! what a request's body has to be, and the client what it is answered. A failure names its path; run alone,
//! `exchange` with it shows the same again.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::unfold;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::Instant;

use super::codings::{decode, encode};
use super::ways::{Way, ways};
use crate::harness::pace;
use crate::harness::wait::soon;

/// What browsers send.
const ACCEPTED: &str = "gzip, deflate, br, zstd";

/// Clients that walk at the same time.
const CLIENTS: usize = 6;

type OutBody = UnsyncBoxBody<Bytes, Infallible>;

/// All that follows from a seed.
struct Case {
    /// The request's, if it has one, and the answer's.
    bodies: [Bytes; 2],
    random: StdRng,
}

impl Case {
    fn of(most: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let bodies = [(); 2].map(|()| body(most, &mut random));
        Self { bodies, random }
    }
}

fn body(most: usize, random: &mut StdRng) -> Bytes {
    let length = match random.random_range(0..20) {
        0 => 0,
        1..4 => random.random_range(1..100),
        // About where bodies are no longer encoded in one go, and where room for output ends.
        4..7 => random.random_range((64 << 10) - 20..(64 << 10) + 20),
        7..12 => random.random_range(1..20_000),
        12..19 => random.random_range(1..most.min(400_000)),
        _ => random.random_range(1..most),
    };
    let length = length.min(most);
    match random.random_range(0..4) {
        0 => {
            let mut noise = vec![0; length];
            random.fill_bytes(&mut noise);
            noise.into()
        }
        // Not so long that they would count as bombs.
        1 => {
            let mut runs = Vec::with_capacity(length);
            while runs.len() < length {
                let run = random.random_range(1..150).min(length - runs.len());
                runs.resize(runs.len() + run, random.random());
            }
            runs.into()
        }
        _ => {
            let mut text = String::with_capacity(length + 100);
            while text.len() < length {
                let (id, score) = (random.random::<u16>(), random.random_range(0..100));
                writeln!(text, "{{\"id\":{id},\"name\":\"somebody\",\"score\":{score}}},").unwrap();
            }
            text.truncate(length);
            text.into()
        }
    }
}

/// Bytes as they are sent: in pieces of any size, with a few pauses.
fn sent(bytes: Bytes, random: &mut StdRng) -> OutBody {
    let most = *[10, 1_000, 20_000, 1 << 20].choose(random).unwrap();
    let most = most.max(bytes.len() / 300);
    let pauses = 3.0 / (10.0 + 2.0 * bytes.len() as f64 / most as f64);
    let random = StdRng::from_rng(random);
    let frames = unfold((bytes, random), move |(mut bytes, mut random)| async move {
        if bytes.is_empty() {
            return None;
        }
        if random.random_bool(pauses) {
            pace(Duration::from_millis(random.random_range(1..15))).await;
        }
        let piece = bytes.split_to(random.random_range(1..=most).min(bytes.len()));
        Some((Ok(Frame::data(piece)), (bytes, random)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The headers of a body, which say how long it is, or do not.
fn said(length: usize, random: &mut StdRng) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "text/plain".parse().unwrap());
    if random.random_bool(0.5) {
        headers.insert("content-length", length.to_string().parse().unwrap());
    }
    headers
}

/// Reads a body, some of its readers slowly.
async fn read(mut body: Incoming, random: &mut StdRng) -> Result<Vec<u8>, hyper::Error> {
    let (mut all, mut pauses) = (Vec::new(), if random.random_bool(0.3) { 15 } else { 0 });
    while let Some(frame) = soon("more of a body", body.frame()).await {
        if let Ok(data) = frame?.into_data() {
            all.extend_from_slice(&data);
        }
        if pauses > 0 && random.random_bool(0.3) {
            pauses -= 1;
            pace(Duration::from_millis(random.random_range(1..8))).await;
        }
    }
    Ok(all)
}

/// An origin for both versions of HTTP that knows its cases.
async fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let io = TokioIo::new(stream);
                // The proxy closes connections as it likes.
                let _ = builder.serve_connection(io, service_fn(answer)).await;
            });
        }
    });
    address
}

/// Answers as the path says, and tells what the request came in, and whether it was what it had to be.
async fn answer(request: Request<Incoming>) -> Result<Response<OutBody>, hyper::Error> {
    let (head, body) = request.into_parts();
    let mut parts = head.uri.path().rsplit('/');
    let seed = parts.next().unwrap().parse().unwrap();
    let most = parts.next().unwrap().parse().unwrap();
    let Case { bodies: [asked, answered], mut random } = Case::of(most, seed);
    let body = read(body, &mut random).await?;
    let coding = head.headers.get("content-encoding").map_or("", |value| value.to_str().unwrap());
    let plain = if coding.is_empty() { Some(body) } else { decode(coding, &body) };
    let expected = if head.method == "POST" { &asked[..] } else { b"" };
    let headers = said(answered.len(), &mut random);
    let mut response = Response::new(sent(answered, &mut random));
    *response.headers_mut() = headers;
    response.headers_mut().insert("x-came-in", coding.parse().unwrap());
    let is_meant = if plain.as_deref() == Some(expected) { "yes" } else { "no" };
    response.headers_mut().insert("x-is-meant", is_meant.parse().unwrap());
    Ok(response)
}

/// A connection of either version, whose buffers are small if its client is slow.
async fn send(
    address: SocketAddr,
    over_http2: bool,
    slow: bool,
    request: Request<OutBody>,
) -> Response<Incoming> {
    let socket = TcpSocket::new_v4().unwrap();
    if slow {
        socket.set_recv_buffer_size(32 << 10).unwrap();
    }
    let stream = soon("a connection", socket.connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let io = TokioIo::new(stream);
    let answer = if over_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        if slow {
            builder.initial_stream_window_size(8_000).initial_connection_window_size(65_535);
        }
        let (mut sender, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection);
        soon("a head", sender.send_request(request)).await
    } else {
        let mut builder = http1::Builder::new();
        if slow {
            builder.max_buf_size(8192);
        }
        let (mut sender, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection);
        soon("a head", sender.send_request(request)).await
    };
    answer.unwrap()
}

/// One request and its answer.
async fn exchange(way: &Way, seed: u64) {
    let Case { bodies: [asked, answered], .. } = Case::of(way.most, seed);
    // The client's choices are its own.
    let mut random = StdRng::seed_from_u64(!seed);
    let path = format!("/{}/{}/{seed}", random.random_range(1..=2), way.most);
    let (over_http2, slow) = (random.random_bool(0.4), random.random_bool(0.2));
    let uri = if over_http2 { format!("http://test{path}") } else { path.clone() };
    let mut request = Request::builder().uri(uri).header("accept-encoding", ACCEPTED);
    if !over_http2 {
        request = request.header("host", "test");
    }
    let posts = random.random_bool(0.5);
    let mut body = Bytes::new();
    if posts {
        body = asked.clone();
        if let Some(coding) = way.takes.choose(&mut random).filter(|_| random.random_bool(0.7)) {
            body = encode(coding, &asked).into();
            request = request.header("content-encoding", *coding);
        }
        request.headers_mut().unwrap().extend(said(body.len(), &mut random));
        request = request.method("POST");
    }
    let request = request.body(sent(body, &mut random)).unwrap();
    let what = format!("{:?} {path}, HTTP/2: {over_http2}, slow: {slow}, POST: {posts}", way.name);
    let (head, body) = send(way.address, over_http2, slow, request).await.into_parts();
    assert_eq!(head.status, 200, "{what}");
    let header = |name: &str| head.headers.get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!(header("x-is-meant"), "yes", "the request of {what}");
    if posts && asked.len() >= 30 {
        assert_eq!(header("x-came-in"), way.asks, "{what}");
    }
    let body = read(body, &mut random).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let coding = header("content-encoding");
    assert!(coding == way.answers || coding.is_empty() && answered.len() < way.least, "{what}");
    let plain = if coding.is_empty() { Some(body) } else { decode(coding, &body) };
    assert!(plain.as_deref() == Some(&answered[..]), "the answer to {what}, in {coding:?}");
}

/// Has clients walk from a seed until so many exchanges are done.
async fn walk(seed: u64, enough: impl Fn(u64) -> bool + Sync) -> u64 {
    let (proxy, ways) = ways(origin().await).await;
    let next = AtomicU64::new(0);
    let clients = (0..CLIENTS).map(async |_| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if enough(number) {
                return;
            }
            let way = &ways[usize::try_from(number).unwrap() % ways.len()];
            exchange(way, seed.wrapping_add(number)).await;
        }
    });
    join_all(clients).await;
    for coding in ["gzip", "deflate", "br", "zstd"] {
        for operation in
            ["compression.{}.response", "compression.{}.request", "decompression.{}.request"]
        {
            let cell = format!("http.in.{}", operation.replace("{}", coding));
            assert!(proxy.stat(&format!("{cell}.bodies")).await > 0, "{cell}");
            proxy.until_stat(&format!("{cell}.active"), 0).await;
        }
    }
    next.into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_body_is_and_passes_it_stays_what_was_meant() {
    walk(20_261_127, |number| number >= 200).await;
}

/// `cargo test --test it a_long_walk -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "two minutes of it, elsewhere each time"]
async fn a_long_walk_ends_well_too() {
    let (seed, begun) = (rand::random(), Instant::now());
    let exchanges = walk(seed, |_| begun.elapsed() > Duration::from_secs(120)).await;
    eprintln!("{exchanges} exchanges from seed {seed}");
}
