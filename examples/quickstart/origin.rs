//! A small origin: an HTTP server that says its name and what it was asked for.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves on a free port of 127.0.0.1 until the process ends, and counts its answers.
pub(crate) async fn start(
    name: &'static str,
    answered: &Arc<AtomicUsize>,
) -> io::Result<SocketAddr> {
    let answered = Arc::clone(answered);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answered = Arc::clone(&answered);
            let answer = service_fn(move |request: Request<Incoming>| {
                // The proxy asks now and then whether this origin is well.
                let asked = usize::from(request.uri().path() != "/health");
                answered.fetch_add(asked, Ordering::Relaxed);
                async move { answer(name, &request) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok(address)
}

fn answer(name: &str, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = format!("{name} was asked: {} {}\n", request.method(), request.uri());
    Ok(Response::new(Full::from(text)))
}
