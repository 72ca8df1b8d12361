//! A scripted origin: answers as it is told, counts, and remembers what it was asked.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::DATE;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use httpdate::fmt_http_date;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::origin_script::{Ending, Script};
use super::wait::eventually;

type Cut = Box<dyn std::error::Error + Send + Sync>;
type OutBody = BoxBody<Bytes, Cut>;

/// A running origin. Dropping it closes everything.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

struct State {
    name: String,
    script: Mutex<Script>,
    /// Waiting answers go on when it changes.
    release: watch::Sender<u64>,
    heads: Mutex<Vec<Parts>>,
    connections: AtomicU64,
    open_connections: AtomicU64,
    active: AtomicU64,
    most_active: AtomicU64,
    /// Bytes of request bodies read.
    received: AtomicU64,
    /// Bytes of response bodies handed to the connection.
    sent: AtomicU64,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    /// An HTTP/1.1 origin.
    pub(crate) async fn http1(name: &str) -> Self {
        Self::start(name, "127.0.0.1:0", false).await
    }

    /// An origin that speaks HTTP/2 with prior knowledge only.
    pub(crate) async fn http2(name: &str) -> Self {
        Self::start(name, "127.0.0.1:0", true).await
    }

    /// An HTTP/1.1 origin on a known address.
    pub(crate) async fn at(name: &str, address: SocketAddr) -> Self {
        Self::start(name, &address.to_string(), false).await
    }

    /// The same that speaks HTTP/2 only.
    pub(crate) async fn http2_at(name: &str, address: SocketAddr) -> Self {
        Self::start(name, &address.to_string(), true).await
    }

    async fn start(name: &str, address: &str, h2: bool) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            name: name.to_owned(),
            script: Mutex::new(Script::default()),
            release: watch::channel(0).0,
            heads: Mutex::default(),
            connections: AtomicU64::new(0),
            open_connections: AtomicU64::new(0),
            active: AtomicU64::new(0),
            most_active: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state), h2)).abort_handle();
        Self { address, state, task }
    }

    /// What is answered from now on.
    pub(crate) fn script(&self, script: Script) {
        *self.state.script.lock() = script;
    }

    /// Lets every answer that waits go on.
    pub(crate) fn release(&self) {
        self.state.release.send_modify(|n| *n += 1);
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.heads.lock().len()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn open_connections(&self) -> u64 {
        self.state.open_connections.load(Ordering::SeqCst)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    pub(crate) fn received(&self) -> u64 {
        self.state.received.load(Ordering::SeqCst)
    }

    /// The most requests that were being answered at a time.
    pub(crate) fn most_active(&self) -> u64 {
        self.state.most_active.load(Ordering::SeqCst)
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<Parts> {
        self.state.heads.lock().clone()
    }

    /// The head of the last request.
    pub(crate) fn last(&self) -> Parts {
        self.state.heads.lock().last().expect("the origin was asked").clone()
    }

    /// Waits until so many requests are being answered.
    pub(crate) async fn until_active(&self, wanted: u64) {
        eventually(&format!("{wanted} requests are at the origin"), || {
            let now = self.state.active.load(Ordering::SeqCst);
            std::future::ready((now == wanted).then_some(()))
        })
        .await;
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, h2: bool) {
    // Dropped with this task, which closes every connection.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        state.connections.fetch_add(1, Ordering::SeqCst);
        let open = Gauge::new(&state, |s| &s.open_connections);
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let _open = open;
            serve(stream, state, h2).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, state: Arc<State>, h2: bool) {
    let (close, mut closing) = watch::channel(false);
    let service = service_fn(move |request| answer(Arc::clone(&state), close.clone(), request));
    let io = TokioIo::new(stream);
    let closing = async move {
        let _ = closing.wait_for(|close| *close).await;
    };
    // Errors are what the scripts ask for.
    if h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let _ = builder.auto_date_header(false).serve_connection(io, service).await;
    } else {
        let mut builder = http1::Builder::new();
        let connection = builder.auto_date_header(false).serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            _ = &mut connection => return,
            () = closing => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

/// Counts while it lives.
struct Gauge(Arc<State>, fn(&State) -> &AtomicU64);

impl Gauge {
    fn new(state: &Arc<State>, of: fn(&State) -> &AtomicU64) -> Self {
        of(state).fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state), of)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.1(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(
    state: Arc<State>,
    close: watch::Sender<bool>,
    request: Request<Incoming>,
) -> Result<Response<OutBody>, Cut> {
    let active = Gauge::new(&state, |s| &s.active);
    state.most_active.fetch_max(state.active.load(Ordering::SeqCst), Ordering::SeqCst);
    let script = state.script.lock().clone();
    let mut released = state.release.subscribe();
    let (head, body) = request.into_parts();
    let size_said = script.size_by_path.then(|| last_number(&head));
    state.heads.lock().push(head);
    if script.held {
        let _ = released.changed().await;
    }
    if script.ending == Ending::BeforeHead {
        return Err("cut before the head".into());
    }
    let mut response = Response::builder().status(script.status);
    let headers = response.headers_mut().unwrap();
    headers.extend(script.headers.clone());
    if script.dated && !headers.contains_key(DATE) {
        headers.insert(DATE, fmt_http_date(SystemTime::now()).parse().unwrap());
    }
    if script.echo {
        let body = Echo { body, state, _active: active };
        return Ok(response.body(body.boxed())?);
    }
    if !script.early {
        drain(&state, body).await?;
    }
    let empty = matches!(script.status, 204 | 304);
    let bodyless = Full::new(Bytes::new()).map_err(|never| match never {});
    if empty {
        return Ok(response.body(bodyless.boxed())?);
    }
    let body = script.body.clone().unwrap_or_else(|| Bytes::from(state.name.clone()));
    let size = size_said.or(script.size);
    let is_made = size.is_some();
    let size = size.unwrap_or(body.len() as u64);
    if script.sized {
        response = response.header("content-length", size);
    }
    let body = Scripted {
        script,
        body,
        is_made,
        size,
        at: 0,
        flushed: false,
        released,
        close,
        state,
        _active: active,
    };
    Ok(response.body(body.boxed())?)
}

/// The last part of a path.
fn last_number(head: &Parts) -> u64 {
    head.uri.path().rsplit('/').next().unwrap().parse().unwrap()
}

async fn drain(state: &State, mut body: Incoming) -> Result<(), Cut> {
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            state.received.fetch_add(data.len() as u64, Ordering::SeqCst);
        }
    }
    Ok(())
}

struct Echo {
    body: Incoming,
    state: Arc<State>,
    _active: Gauge,
}

impl Body for Echo {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.state.received.fetch_add(data.len() as u64, Ordering::SeqCst);
        }
        frame.map_err(Into::into)
    }
}

struct Scripted {
    script: Script,
    body: Bytes,
    /// The bytes do not matter.
    is_made: bool,
    size: u64,
    at: u64,
    flushed: bool,
    released: watch::Receiver<u64>,
    close: watch::Sender<bool>,
    state: Arc<State>,
    _active: Gauge,
}

const PIECE: u64 = 16 * 1024;

impl Body for Scripted {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        if this.script.ending == Ending::ThenClose {
            // The head is written, so it does not announce the end.
            this.close.send_replace(true);
        }
        if this.script.held_after.is_some_and(|n| this.at >= n) {
            if !this.released.has_changed().unwrap_or(true) {
                this.state.wake_on_release(cx, this.released.clone());
                return Poll::Pending;
            }
            this.script.held_after = None;
        }
        if let Ending::After(n) = this.script.ending
            && this.at >= n
        {
            if !std::mem::replace(&mut this.flushed, true) {
                // What was written so far leaves before the cut.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err("cut in the body".into())));
        }
        if this.at < this.size {
            let mut n = PIECE.min(this.size - this.at);
            let stops = [
                this.script.held_after,
                match this.script.ending {
                    Ending::After(n) => Some(n),
                    _ => None,
                },
            ];
            for stop in stops.into_iter().flatten().filter(|stop| *stop > this.at) {
                n = n.min(stop - this.at);
            }
            this.at += n;
            this.state.sent.fetch_add(n, Ordering::SeqCst);
            let length = usize::try_from(n).unwrap();
            let data = match this.is_made {
                true => Bytes::from(vec![b'x'; length]),
                false => {
                    let end = usize::try_from(this.at).unwrap();
                    this.body.slice(end - length..end)
                }
            };
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if !this.script.trailers.is_empty() {
            let trailers: HeaderMap = std::mem::take(&mut this.script.trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(None)
    }
}

impl State {
    /// The future that waits for the release cannot be kept inside a body; a task stands for it.
    fn wake_on_release(&self, cx: &Context<'_>, mut released: watch::Receiver<u64>) {
        let waker = cx.waker().clone();
        tokio::spawn(async move {
            let _ = released.changed().await;
            waker.wake();
        });
    }
}
