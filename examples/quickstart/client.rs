//! A client with one connection, and the traffic that runs while the configuration changes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Failure;

/// No request takes longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// One connection, kept alive; a new one when the other side has closed it.
pub(crate) struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    /// Status and body of the answer to `GET path`.
    pub(crate) async fn get(&mut self, path: &str) -> Result<(StatusCode, String), Failure> {
        let answer = timeout(DEADLINE, self.try_get(path)).await;
        answer.map_err(|elapsed| format!("GET {path}: {elapsed}"))?
    }

    async fn try_get(&mut self, path: &str) -> Result<(StatusCode, String), Failure> {
        let sender = match &mut self.sender {
            Some(sender) if !sender.is_closed() => sender,
            _ => {
                let stream = TokioIo::new(TcpStream::connect(self.address).await?);
                let (sender, connection) = handshake(stream).await?;
                tokio::spawn(connection);
                self.sender.insert(sender)
            }
        };
        sender.ready().await?;
        let request = Request::get(path)
            .header(http::header::HOST, self.address.to_string())
            .body(Empty::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((head.status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// What the traffic came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) failures: Vec<String>,
}

/// A client that asks again and again in the background.
pub(crate) struct Traffic {
    stop: watch::Sender<bool>,
    task: JoinHandle<Tally>,
}

impl Traffic {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut client = Client::new(address);
            let mut tally = Tally::default();
            while !*stopped.borrow() {
                tally.requests += 1;
                match client.get("/traffic").await {
                    Ok((StatusCode::OK, _)) => {}
                    Ok((status, body)) => tally.failures.push(format!("{status}: {body}")),
                    Err(error) => tally.failures.push(error.to_string()),
                }
            }
            tally
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Result<Tally, Failure> {
        self.stop.send_replace(true);
        Ok(self.task.await?)
    }
}
