//! A client of one HTTP/1.1 connection, one request at a time.

use std::cmp::Ordering;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Failure;

/// No answer takes longer, whatever else the machine does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Room for a head and a body that a bench asks for; it grows if need be.
const ROOM: usize = 64 << 10;

const MOST_HEADERS: usize = 32;

/// What a bench looks at of an answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Bytes of the body as they travelled.
    pub(crate) length: usize,
    pub(crate) is_encoded: bool,
}

/// A kept connection, made anew when the server said that it ends.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    /// What came of the answer so far is at its begin.
    buffer: Vec<u8>,
    filled: usize,
    is_blocking: bool,
}

impl Client {
    /// One that waits for its answers.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, buffer: vec![0; ROOM], filled: 0, is_blocking: true }
    }

    /// One that never waits for an answer.
    pub(crate) fn eager(address: SocketAddr) -> Self {
        Self { is_blocking: false, ..Self::new(address) }
    }

    /// Sends a request as it is and reads the answer whole.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        self.send(request)?;
        self.receive()?.ok_or_else(|| "no answer in time".into())
    }

    /// Sends a request as it is.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<(), Failure> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.write_all(request)?;
        self.stream = Some(stream);
        self.filled = 0;
        Ok(())
    }

    /// Reads on; none if nothing more is there of an answer that is not whole. A connection that fails is
    /// given up.
    pub(crate) fn receive(&mut self) -> Result<Option<Answer>, Failure> {
        let mut stream = self.stream.take().ok_or("nothing was sent")?;
        loop {
            if self.filled == self.buffer.len() {
                self.buffer.resize(2 * self.filled, 0);
            }
            match stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err("the connection ended within an answer".into()),
                Ok(n) => self.filled += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.is_blocking => {
                    self.stream = Some(stream);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
            let Some((head_length, ends, answer)) = parse(&self.buffer[..self.filled])? else {
                continue;
            };
            match self.filled.cmp(&(head_length + answer.length)) {
                Ordering::Less => {}
                Ordering::Greater => return Err("more came than the answer".into()),
                Ordering::Equal => {
                    self.stream = Some(stream).filter(|_| !ends);
                    return Ok(Some(answer));
                }
            }
        }
    }

    fn connect(&self) -> Result<TcpStream, Failure> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nonblocking(!self.is_blocking)?;
        Ok(stream)
    }
}

/// Length of the head, whether the connection ends with the answer, and what is asked about it; none
/// while the head is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(usize, bool, Answer)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_length) = response.parse(bytes)? else { return Ok(None) };
    let status = response.code.ok_or("an answer without a status")?;
    let mut length = None;
    let (mut ends, mut is_encoded) = (false, false);
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            length = Some(std::str::from_utf8(header.value)?.parse()?);
        } else if header.name.eq_ignore_ascii_case("connection") {
            ends = header.value.eq_ignore_ascii_case(b"close");
        } else if header.name.eq_ignore_ascii_case("content-encoding") {
            is_encoded = true;
        }
    }
    let length = length.ok_or_else(|| format!("an answer {status} without a length"))?;
    Ok(Some((head_length, ends, Answer { status, length, is_encoded })))
}

/// A GET as it is sent.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench.test\r\n\r\n").into_bytes()
}

/// A GET by a client that takes gzip.
pub(crate) fn get_gzip(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench.test\r\naccept-encoding: gzip\r\n\r\n").into_bytes()
}
