//! A small origin: an HTTP server that says its name and what it was asked for.

use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// How many lines the list has that every origin gives under `/static/`.
const LINES: usize = 300;

/// An origin that serves until the process ends.
pub(crate) struct Origin {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    name: &'static str,
    is_well: AtomicBool,
    /// Answers so far, those about its health apart.
    answered: AtomicUsize,
}

impl Origin {
    /// Starts one on a free port of 127.0.0.1.
    pub(crate) async fn start(name: &'static str) -> io::Result<Self> {
        let (is_well, answered) = (AtomicBool::new(true), AtomicUsize::new(0));
        let state = Arc::new(State { name, is_well, answered });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let served = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&served);
                let answer = service_fn(move |request: Request<Incoming>| {
                    std::future::ready(Ok::<_, Infallible>(state.answer(&request)))
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Ok(Self { name, address, state })
    }

    /// What it says of itself from now on when it is asked for `/health`.
    pub(crate) fn set_well(&self, is_well: bool) {
        self.state.is_well.store(is_well, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self) -> usize {
        self.state.answered.load(Ordering::Relaxed)
    }
}

impl State {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == "/health" {
            let mut response = Response::new(Full::default());
            if !self.is_well.load(Ordering::Relaxed) {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            return response;
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        let mut text = format!("{} was asked: {} {}\n", self.name, request.method(), request.uri());
        if path.starts_with("/static/") {
            for line in 0..LINES {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "line {line} of a list that is the same for everybody");
            }
        }
        let mut response = Response::new(Full::from(text));
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        response
    }
}
