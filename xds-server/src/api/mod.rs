//! The API that changes instances while they are served: HTTP with JSON and a bearer token.
//!
//! What it can is one table, `operations::OPERATIONS`: requests are dispatched by it, and the OpenAPI
//! document is made from it.

mod document;
mod operations;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::info;

use crate::gateway::{Live, Refusal};
use crate::listen::{self, Answer, decoded};
use crate::problem::Problem;
use crate::status;
use crate::stream::Hub;

use operations::{OPERATIONS, Operation, Reply};

pub use document::document;

/// A body of more bytes is refused.
const MOST_BYTES: usize = 256 * 1024;
/// A body must have come within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the API needs: whose instances it changes, and the token that a request must show.
#[derive(Clone)]
pub struct Access {
    live: Live,
    token: Arc<str>,
}

impl Access {
    /// Leave to change the instances of a gateway for whoever knows the text of a file, without the
    /// space around it.
    ///
    /// # Errors
    /// When the file cannot be read or holds nothing.
    pub fn by_token_file(live: Live, file: &Path) -> Result<Self, Problem> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Problem::new(format!("cannot be read: {error}")).in_file(file))?;
        match text.trim() {
            "" => Err(Problem::new("holds no token").in_file(file)),
            token => Ok(Self { live, token: token.into() }),
        }
    }

    /// Whether a request shows the token. Takes as long for every wrong one of its length.
    fn admits(&self, request: &Request<Incoming>) -> bool {
        let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let shown = shown.and_then(|value| value.split_at_checked(7));
        let Some((_, shown)) = shown.filter(|(kind, _)| kind.eq_ignore_ascii_case(b"bearer "))
        else {
            return false;
        };
        let token = self.token.as_bytes();
        let differs = shown.iter().zip(token).fold(0, |differs, (a, b)| differs | (a ^ b));
        shown.len() == token.len() && differs == 0
    }
}

/// Answers on `listener` until the server stops.
pub(crate) async fn serve(listener: TcpListener, hub: Hub, access: Access, started: SystemTime) {
    let stop = hub.stop.clone();
    let answer = move |request| {
        let (hub, access) = (hub.clone(), access.clone());
        async move { answer(request, hub, access, started).await }
    };
    listen::serve(listener, stop, answer).await;
}

async fn answer(
    request: Request<Incoming>,
    hub: Hub,
    access: Access,
    started: SystemTime,
) -> Answer {
    if !access.admits(&request) {
        let mut answer = told(StatusCode::UNAUTHORIZED, "a bearer token is required", &[]);
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return answer;
    }
    let (operation, names) = match find(request.method().as_str(), request.uri().path()) {
        Ok(found) => found,
        Err(answer) => return *answer,
    };
    let line = format!("{} {}", request.method(), request.uri().path());
    let body = match body_of(request, operation).await {
        Ok(body) => body,
        Err(answer) => return *answer,
    };
    let run = move || {
        let status = || {
            let world = Arc::clone(&hub.world.borrow());
            status::status(&world, &hub.registry, started, SystemTime::now())
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        (operation.run)(&operations::Call { live: &access.live, status: &status }, &names, &body)
    };
    match tokio::task::spawn_blocking(run).await {
        Ok(Ok(Reply { status, document })) => {
            if operation.method != "GET" {
                info!(request = line, "instances changed");
            }
            match document {
                Some(document) => listen::json(status, &document),
                None => listen::text(status, String::new()),
            }
        }
        Ok(Err(refusal)) => refused(refusal),
        Err(error) => told(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string(), &[]),
    }
}

/// The operation of a method and a path, and what stands in its braces.
fn find(method: &str, path: &str) -> Result<(&'static Operation, Vec<String>), Box<Answer>> {
    let matching = || OPERATIONS.iter().filter_map(|o| Some((o, o.names(path)?)));
    if let Some((found, names)) = matching().find(|(operation, _)| operation.method == method) {
        return Ok((found, names.into_iter().map(decoded).collect()));
    }
    let methods: Vec<_> = matching().map(|(operation, _)| operation.method).collect();
    if methods.is_empty() {
        return Err(Box::new(told(StatusCode::NOT_FOUND, &format!("no {path} here"), &[])));
    }
    let methods = methods.join(", ");
    let mut answer = told(StatusCode::METHOD_NOT_ALLOWED, &format!("only {methods}"), &[]);
    if let Ok(methods) = HeaderValue::from_str(&methods) {
        answer.headers_mut().insert(ALLOW, methods);
    }
    Err(Box::new(answer))
}

/// The JSON that a request has, if its operation takes any.
async fn body_of(request: Request<Incoming>, operation: &Operation) -> Result<Value, Box<Answer>> {
    if operation.body.is_none() {
        return Ok(Value::Null);
    }
    let bad = |message: &str| Box::new(told(StatusCode::BAD_REQUEST, message, &[]));
    let body = Limited::new(request.into_body(), MOST_BYTES).collect();
    let bytes: Bytes = match timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return Err(bad(&format!("the body cannot be read: {error}"))),
        Err(_) => return Err(bad("the body did not come in time")),
    };
    serde_json::from_slice(&bytes).map_err(|error| bad(&format!("the body is not JSON: {error}")))
}

fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::Unknown(what) => told(StatusCode::NOT_FOUND, &format!("there is no {what}"), &[]),
        Refusal::Exists(what) => told(StatusCode::CONFLICT, &format!("there is {what}"), &[]),
        Refusal::Malformed(problems) => {
            told(StatusCode::BAD_REQUEST, "the body is not what it should be", &problems)
        }
        Refusal::FileIsBad(problems) => {
            told(StatusCode::CONFLICT, "the gateway file is bad; mend it first", &problems)
        }
        Refusal::Bad(problems) => {
            told(StatusCode::UNPROCESSABLE_ENTITY, "proxies would refuse it", &problems)
        }
        Refusal::NotKept(error) => {
            let message = format!("the change cannot be written: {error}");
            told(StatusCode::INTERNAL_SERVER_ERROR, &message, &[])
        }
    }
}

fn told(status: StatusCode, error: &str, problems: &[Problem]) -> Answer {
    listen::json(status, &json!({ "error": error, "problems": problems }))
}
