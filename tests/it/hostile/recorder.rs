//! An origin that reads requests in the one form that nobody can read in two ways, and keeps what it read.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the proxy adds to every request.
const OURS: [&str; 3] = ["x-forwarded-proto: ", "x-envoy-expected-rq-timeout-ms: ", "host: t"];

/// What is answered to requests for `/told`.
#[derive(Clone, Default)]
pub(super) struct Told {
    pub(super) bytes: Vec<u8>,
    /// How often they are sent.
    pub(super) times: usize,
    /// The connection is closed afterwards.
    pub(super) closes: bool,
}

#[derive(Default)]
struct State {
    seen: Vec<String>,
    told: Told,
}

/// The origin. It answers with the target of the request.
pub(super) struct Recorder {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let kept = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, state.clone()));
            }
        });
        Self { address, state: kept }
    }

    /// The whole requests since the last call: `METHOD target | name: value = body`, the headers sorted and
    /// without those that the proxy adds or every request has.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().seen)
    }

    pub(super) fn tell(&self, told: Told) {
        self.state.lock().told = told;
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut bytes = Vec::new();
    loop {
        let read = match parse(&bytes) {
            Ok(Some((text, length))) => {
                bytes.drain(..length);
                let target = text.split(' ').nth(1).unwrap_or_default().to_owned();
                let bodiless = text.starts_with("HEAD ");
                state.lock().seen.push(text);
                answer(&mut stream, &target, bodiless, &state).await
            }
            Ok(None) => stream.read_buf(&mut bytes).await.map(|read| read > 0),
            Err(why) => {
                state.lock().seen.push(format!("unclear, {why}: {}", bytes.escape_ascii()));
                return;
            }
        };
        if !matches!(read, Ok(true)) {
            return;
        }
    }
}

/// Whether the connection goes on.
async fn answer(
    stream: &mut TcpStream,
    target: &str,
    bodiless: bool,
    state: &Mutex<State>,
) -> std::io::Result<bool> {
    if target == "/told" {
        let told = state.lock().told.clone();
        for _ in 0..told.times {
            stream.write_all(&told.bytes).await?;
        }
        return Ok(!told.closes);
    }
    let body = if bodiless { "" } else { target };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", target.len());
    stream.write_all(head.as_bytes()).await?;
    Ok(true)
}

/// The first request as [`Recorder::take`] shows it, and its length; none while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(String, usize)>, &'static str> {
    let Some((head, mut at)) = until(bytes, b"\r\n\r\n") else { return Ok(None) };
    let mut lines = lines(head)?.into_iter();
    let first = lines.next().unwrap_or_default();
    let (method, target) = first
        .strip_suffix(" HTTP/1.1")
        .and_then(|first| first.split_once(' '))
        .filter(|(method, target)| !method.is_empty() && !target.contains(' '))
        .ok_or("the first line")?;
    let headers: Vec<String> = lines.collect();
    let fields = fields(&headers)?;
    let one = |name: &str| match fields.get(name).map(Vec::as_slice) {
        None => Ok(None),
        Some([value]) => Ok(Some(*value)),
        Some(_) => Err("several of what may be there once"),
    };
    one("host")?.ok_or("no host")?;
    let body = match (one("content-length")?, one("transfer-encoding")?) {
        (None, None) => Vec::new(),
        (Some(length), None) if length.bytes().all(|digit| digit.is_ascii_digit()) => {
            let length = length.parse::<usize>().map_err(|_long| "a long length")?;
            let Some(body) = bytes.get(at..at + length) else { return Ok(None) };
            at += length;
            body.to_vec()
        }
        (None, Some("chunked")) => match chunks(&bytes[at..])? {
            Some((body, length)) => {
                at += length;
                body
            }
            None => return Ok(None),
        },
        _ => return Err("the framing"),
    };
    let mut shown: Vec<_> =
        headers.iter().filter(|line| !OURS.iter().any(|ours| line.starts_with(ours))).collect();
    shown.extend(headers.iter().filter(|line| line.starts_with("host: t") && *line != "host: t"));
    shown.sort();
    let mut text = format!("{method} {target}");
    shown.iter().for_each(|line| text += &format!(" | {line}"));
    if !body.is_empty() {
        text += &format!(" = {}", body.escape_ascii());
    }
    Ok(Some((text, at)))
}

fn until<'b>(bytes: &'b [u8], end: &[u8]) -> Option<(&'b [u8], usize)> {
    let at = bytes.windows(end.len()).position(|window| window == end)?;
    Some((&bytes[..at], at + end.len()))
}

/// Lines that nothing but CRLF divides.
fn lines(text: &[u8]) -> Result<Vec<String>, &'static str> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<_> = text.split("\r\n").map(str::to_owned).collect();
    match lines.iter().any(|line| line.contains(|c: char| c.is_ascii_control() && c != '\t')) {
        true => Err("a control byte"),
        false => Ok(lines),
    }
}

fn fields(lines: &[String]) -> Result<HashMap<&str, Vec<&str>>, &'static str> {
    let mut fields = HashMap::<_, Vec<_>>::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("a header without colon")?;
        let in_token =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(in_token) {
            return Err("a header's name");
        }
        if value.trim() != value {
            return Err("spaces around a value");
        }
        fields.entry(name).or_default().push(value);
    }
    Ok(fields)
}

/// A chunked body and its length with all that frames it; none while it is not whole.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some((size, length)) = until(&bytes[at..], b"\r\n") else { return Ok(None) };
        at += length;
        let size = std::str::from_utf8(size).map_err(|_binary| "a chunk's size")?;
        if size.is_empty() || !size.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("a chunk's size");
        }
        let size = usize::from_str_radix(size, 16).map_err(|_long| "a chunk's size")?;
        if size == 0 {
            return trailers(&bytes[at..]).map(|end| end.map(|length| (body, at + length)));
        }
        let Some(data) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !data.ends_with(b"\r\n") {
            return Err("a chunk's end");
        }
        body.extend(&data[..size]);
        at += size + 2;
    }
}

fn trailers(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    if bytes.starts_with(b"\r\n") {
        return Ok(Some(2));
    }
    let Some((text, length)) = until(bytes, b"\r\n\r\n") else { return Ok(None) };
    let lines = lines(text)?;
    let fields = fields(&lines)?;
    match ["content-length", "transfer-encoding", "host"].iter().any(|f| fields.contains_key(f)) {
        true => Err("framing in a trailer"),
        false => Ok(Some(length)),
    }
}
