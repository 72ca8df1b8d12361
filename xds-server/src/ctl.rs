//! `xds-server ctl`: the command line of the API that changes instances.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that does not answer is given up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct Ctl {
    /// Address of the server's `--api`.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18002")]
    api: String,
    /// File with the token that the server knows.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Prints what the server answers, as JSON.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists services and their instances.
    Services,
    /// Lists the instances of one service.
    Service {
        /// The service.
        service: String,
    },
    /// Lists connected proxies, and how each takes what it is sent.
    Proxies,
    /// Adds an instance.
    Add {
        /// The service.
        service: String,
        /// Where the instance is: `http://HOST:PORT`.
        url: String,
        /// Its name; `HOST:PORT` unless it is said.
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        said: Said,
    },
    /// Changes an instance; what is not said stays.
    Change {
        /// The service.
        service: String,
        /// The instance.
        instance: String,
        /// Where it is.
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        said: Said,
    },
    /// Drains an instance: it finishes what it has and gets nothing new.
    Drain {
        /// The service.
        service: String,
        /// The instance.
        instance: String,
    },
    /// Takes an instance that drains into service again.
    Undrain {
        /// The service.
        service: String,
        /// The instance.
        instance: String,
    },
    /// Removes an instance at once.
    Remove {
        /// The service.
        service: String,
        /// The instance.
        instance: String,
    },
    /// Sets weights.
    Weights {
        /// The service.
        service: String,
        /// Instances and their weights.
        #[arg(value_name = "INSTANCE=WEIGHT", required = true, value_parser = pair)]
        weights: Vec<(String, Value)>,
    },
}

/// What can be said of an instance.
#[derive(Debug, Args)]
struct Said {
    /// Its weight.
    #[arg(long)]
    weight: Option<u32>,
    /// Its zone.
    #[arg(long)]
    zone: Option<String>,
    /// What else is known of it.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, Value)>,
}

impl Said {
    fn into_json(self, more: [(&str, Option<String>); 2]) -> Value {
        let mut body = Map::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(key.to_owned(), value);
            }
        };
        more.into_iter().for_each(|(key, value)| set(key, value.map(Value::String)));
        set("weight", self.weight.map(|weight| json!(weight)));
        set("zone", self.zone.map(Value::String));
        let metadata: Map<String, Value> = self.metadata.into_iter().collect();
        set("metadata", (!metadata.is_empty()).then_some(Value::Object(metadata)));
        Value::Object(body)
    }
}

/// `KEY=VALUE`; a value that is JSON is what JSON says.
fn pair(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let read = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    Ok((key.to_owned(), read))
}

impl Ctl {
    /// Does it; what is to be shown of the answer.
    pub(crate) async fn run(self) -> Result<String, String> {
        let Self { api, token_file, json, action } = self;
        let token = std::fs::read_to_string(&token_file)
            .map_err(|error| format!("{}: cannot be read: {error}", token_file.display()))?;
        let (method, path, body) = action.request();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &api)
            .header(AUTHORIZATION, format!("Bearer {}", token.trim()))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.map_or(String::new(), |body| body.to_string()))))
            .map_err(|error| error.to_string())?;
        let answer = timeout(PATIENCE, send(&api, request)).await;
        let (good, document) = answer.map_err(|late| format!("{api}: no answer: {late}"))??;
        match (good, json) {
            (false, _) => Err(failure(&document)),
            (true, true) if document.is_null() => Ok(String::new()),
            (true, true) => Ok(format!("{document:#}\n")),
            (true, false) => Ok(shown(&document)),
        }
    }
}

impl Action {
    fn request(self) -> (Method, String, Option<Value>) {
        let of = |service: &str| format!("/v1/services/{}", escaped(service));
        let at = |service: &str, instance: &str| {
            format!("{}/instances/{}", of(service), escaped(instance))
        };
        match self {
            Self::Services => (Method::GET, "/v1/services".to_owned(), None),
            Self::Service { service } => (Method::GET, of(&service), None),
            Self::Proxies => (Method::GET, "/v1/proxies".to_owned(), None),
            Self::Add { service, url, id, said } => {
                let body = said.into_json([("url", Some(url)), ("id", id)]);
                (Method::POST, format!("{}/instances", of(&service)), Some(body))
            }
            Self::Change { service, instance, url, said } => {
                let body = said.into_json([("url", url), ("", None)]);
                (Method::PATCH, at(&service, &instance), Some(body))
            }
            Self::Drain { service, instance } => {
                (Method::POST, format!("{}/drain", at(&service, &instance)), None)
            }
            Self::Undrain { service, instance } => {
                (Method::DELETE, format!("{}/drain", at(&service, &instance)), None)
            }
            Self::Remove { service, instance } => (Method::DELETE, at(&service, &instance), None),
            Self::Weights { service, weights } => {
                let body = Value::Object(weights.into_iter().collect());
                (Method::PUT, format!("{}/weights", of(&service)), Some(body))
            }
        }
    }
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            other => drop(write!(text, "%{other:02X}")),
        }
    }
    text
}

async fn send(api: &str, request: Request<Full<Bytes>>) -> Result<(bool, Value), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{api}: {error}");
    let stream = TcpStream::connect(api).await.map_err(|error| failed(&error))?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    // Ends with the answer.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let good = answer.status().is_success();
    let body = answer.into_body().collect().await.map_err(|error| failed(&error))?.to_bytes();
    let document = match body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&body).map_err(|error| failed(&error))?,
    };
    Ok((good, document))
}

fn failure(document: &Value) -> String {
    let mut text = document["error"].as_str().unwrap_or("refused").to_owned();
    for problem in document["problems"].as_array().into_iter().flatten() {
        let field = problem["field"].as_str().filter(|field| !field.is_empty());
        let field = field.map_or(String::new(), |field| format!("{field}: "));
        text.push_str(&format!("\n  {field}{}", problem["message"].as_str().unwrap_or_default()));
    }
    text
}

/// A line for each instance, or for each type of each proxy.
fn shown(document: &Value) -> String {
    let mut text = String::new();
    let each = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    // Writing to a String cannot fail.
    for proxy in each(document, "proxies") {
        for ty in each(&proxy, "types") {
            let nack = ty["last_nack"]["message"].as_str().unwrap_or_default();
            let (node, kind, state) =
                (word(&proxy["node_id"]), word(&ty["type"]), word(&ty["state"]));
            let line = format!("{node}\t{kind}\t{state}\t{nack}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    for service in each(document, "services") {
        text.push_str(&instances(&service));
    }
    if document["instances"].is_array() {
        text.push_str(&instances(document));
    }
    if document["id"].is_string() {
        let _ = writeln!(text, "{}", instance(document));
    }
    text
}

fn instances(service: &Value) -> String {
    let mut text = String::new();
    let name = word(&service["name"]);
    for one in service["instances"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "{name}\t{}", instance(one));
    }
    if let Some(dns) = service["dns"].as_str() {
        let _ = writeln!(text, "{name}\t{dns}\tdns");
    }
    text
}

fn instance(one: &Value) -> String {
    let state = if one["draining"] == true { "draining" } else { "serving" };
    let (id, url, from) = (word(&one["id"]), word(&one["url"]), word(&one["from"]));
    format!("{id}\t{url}\tweight {}\t{state}\t{from}", one["weight"])
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
