//! Checks by a connection: `config.core.v3.HealthCheck.TcpHealthCheck`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Asked, Verdict};

/// Bytes that are read in search of what is expected.
const MOST: usize = 64 * 1024;

/// What is sent and what must come back. Nothing of either is a check by connecting alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpCheck {
    /// Sent first.
    pub send: Vec<u8>,
    /// Each must come, one after the other, with anything between them.
    pub receive: Vec<Vec<u8>>,
}

impl TcpCheck {
    pub(super) async fn run(&self, asked: &Asked<'_>) -> Verdict {
        let lost = Verdict::Lost { timeout: false };
        let well = Verdict::Success { degraded: false };
        let Ok(mut stream) = TcpStream::connect(asked.address).await else { return lost };
        if !self.send.is_empty() && stream.write_all(&self.send).await.is_err() {
            return lost;
        }
        let mut received = Vec::new();
        while !has_all(&received, &self.receive) {
            match stream.read_buf(&mut received).await {
                Ok(n) if n > 0 && received.len() < MOST => {}
                _ => return lost,
            }
        }
        well
    }
}

/// Whether `bytes` has all `parts` in order.
fn has_all(mut bytes: &[u8], parts: &[Vec<u8>]) -> bool {
    parts.iter().filter(|part| !part.is_empty()).all(|part| {
        let found = bytes.windows(part.len()).position(|window| window == part);
        found.inspect(|at| bytes = &bytes[at + part.len()..]).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_in_order() {
        let all = |bytes: &str, parts: &[&str]| {
            let parts: Vec<_> = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
            has_all(bytes.as_bytes(), &parts)
        };
        assert!(all("", &[]) && all("x", &[""]));
        assert!(all("abc abd", &["ab", "abd"]));
        assert!(!all("abd abc", &["abc", "abd"]));
        assert!(!all("aba", &["ab", "ba"]), "a byte counts once");
    }
}
