//! A client with one connection, and the traffic that runs while the configuration changes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Failure;

/// No request takes longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }

    /// A header's text; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The name of the origin that answered, with which each begins its text.
    pub(crate) fn origin(&self) -> String {
        self.text().split(' ').next().unwrap_or_default().to_owned()
    }
}

/// One connection, kept alive; a new one when the other side has closed it.
pub(crate) struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        self.send(Method::GET, path, headers, "").await
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder()
            .method(&method)
            .uri(path)
            .header(http::header::HOST, self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned()))?;
        let answer = timeout(DEADLINE, self.try_send(request)).await;
        answer.map_err(|elapsed| format!("{method} {path}: {elapsed}"))?
    }

    async fn try_send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
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
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
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
                    Ok(Answer { status: StatusCode::OK, .. }) => {}
                    Ok(answer) => {
                        tally.failures.push(format!("{}: {}", answer.status, answer.text()));
                    }
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
