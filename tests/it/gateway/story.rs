//! What a case does and looks at, verb by verb.
//!
//! ```text
//! origin a 503 | text 4000 | held | name: value     what it answers; 200 and its name unless said
//! down a                                            it is gone
//! > x4 POST /path | name: value | body gzip         requests; $cookie is the last cookie that was set
//! = 200 | name: pattern | !name | body a            the last answer
//! share a=3 b=1                                     how many of the answers since were whose
//! same, smaller                                     they were all of one; the last is shorter than the one before
//! hold 3 /path                                      requests that stay under way
//! release a, done 200                               the origin goes on; they are all answered so
//! expect /path                                      a request whose body waits to be asked for, and is
//! asked a = 3, active a = 1                         requests that an origin had, or has at once
//! received a | name: pattern | !name | path /x      its last one
//! connections a = 2, open a = 1                     connections that it had, or has
//! probed a                                          TCP asks it whether it is there
//! stat name = 1, stat name >= 1                     a statistic of the proxy
//! admin /path | has text | lacks text               a page of it
//! warns text                                        the management server does
//! listener name, wait 300                           which is asked; milliseconds that are the point
//! ```

use std::time::Duration;

use http::HeaderMap;
use tokio::task::JoinHandle;

use super::format::{Case, Step};
use super::world::World;
use crate::harness::{Answer, Http1, Origin, Script, eventually, pace, request};

struct Teller {
    world: World,
    listener: String,
    answers: Vec<Answer>,
    /// The one before those.
    earlier: Option<Answer>,
    cookie: String,
    held: Vec<JoinHandle<Answer>>,
}

/// What is not as the case says.
pub(super) async fn run(case: &Case) -> Vec<String> {
    let mut teller = Teller {
        world: World::new().await,
        listener: "in".to_owned(),
        answers: Vec::new(),
        earlier: None,
        cookie: String::new(),
        held: Vec::new(),
    };
    teller.world.write(&case.yaml);
    for step in &case.before {
        teller.step(step).await.unwrap();
    }
    if let Err(error) = teller.world.start().await {
        return vec![error];
    }
    let mut faults = Vec::new();
    for step in &case.steps {
        if let Err(fault) = teller.step(step).await {
            faults.push(format!("line {}: {fault}", step.line));
        }
    }
    faults
}

type Done = Result<(), String>;

impl Teller {
    async fn step(&mut self, step: &Step) -> Done {
        let Step { line, verb, rest, more } = step;
        let words: Vec<&str> = rest.split(' ').collect();
        match (verb.as_str(), words.as_slice()) {
            ("origin", [name, status @ ..]) => {
                let status = status.first().map_or(200, |status| status.parse().unwrap());
                self.world.origin(name).script(script(status, more));
                Ok(())
            }
            ("down", [name]) => {
                self.world.drop_origin(name);
                Ok(())
            }
            (">", words) => self.ask(words, more).await,
            ("=", [status]) => self.seen(status, more),
            ("share", shares) => self.shares(shares),
            ("same", [""]) => {
                check(self.distinct() == 1, || format!("{} answered", self.distinct()))
            }
            ("smaller", [""]) => self.smaller(),
            ("hold", [count, path]) => self.hold(count.parse().unwrap(), path).await,
            ("release", [name]) => {
                self.world.origin(name).release();
                Ok(())
            }
            ("done", [status]) => self.done(status).await,
            ("expect", [path]) => self.expect(path).await,
            ("asked", [name, "=", n]) => self.until(name, "asked", n, Origin::requests).await,
            ("active", [name, "=", n]) => {
                self.world.origin(name).until_active(n.parse().unwrap()).await;
                check(self.world.origin(name).most_active() <= n.parse().unwrap(), || {
                    format!("{} were under way", self.world.origin(name).most_active())
                })
            }
            ("received", [name]) => {
                let last = self.world.origin(name).last();
                let path = |part: &String| part.strip_prefix("path ").map(str::to_owned);
                if let Some(path) = more.iter().find_map(path) {
                    check(last.uri == *path, || format!("{name} was asked for {}", last.uri))?;
                }
                let headers = more.iter().filter(|part| path(part).is_none());
                look(&last.headers, headers)
            }
            ("connections", [name, "=", n]) => {
                self.until(name, "connections", n, |origin| size(origin.connections())).await
            }
            ("open", [name, "=", n]) => {
                self.until(name, "open", n, |origin| size(origin.open_connections())).await
            }
            ("probed", [name]) => probed(self.world.origin(name)),
            ("stat", [name, "=", n]) => {
                self.world.proxy().until_stat(name, n.parse().unwrap()).await;
                Ok(())
            }
            ("stat", [name, ">=", n]) => {
                self.world.proxy().until_stat_at_least(name, n.parse().unwrap()).await;
                Ok(())
            }
            ("admin", [path]) => self.admin(path, more).await,
            ("warns", _) => {
                let status = self.world.management().status();
                let warnings = &status.groups[0].warnings;
                let found = warnings.iter().any(|warning| warning.to_string().contains(rest));
                check(found, || format!("{warnings:?}"))
            }
            ("listener", [name]) => {
                self.listener = (*name).to_owned();
                Ok(())
            }
            ("wait", [ms]) => {
                pace(Duration::from_millis(ms.parse().unwrap())).await;
                Ok(())
            }
            _ => panic!("line {line} is not understood: {verb} {rest}"),
        }
    }

    async fn address(&self) -> std::net::SocketAddr {
        self.world.proxy().new_listener(&self.listener).await
    }

    async fn ask(&mut self, words: &[&str], more: &[String]) -> Done {
        let (count, words) = match words {
            [count, rest @ ..] if count.starts_with('x') => (count[1..].parse().unwrap(), rest),
            all => (1, all),
        };
        let [method, path] = words else { return Err(format!("no request: {words:?}")) };
        let body: &[u8] = if more.iter().any(|part| part == "body gzip") { &gzip() } else { b"" };
        let cookie = self.cookie.clone();
        let headers: Vec<(String, String)> = more
            .iter()
            .filter_map(|part| part.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.replace("$cookie", &cookie)))
            .collect();
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let address = self.address().await;
        self.earlier = self.answers.pop();
        self.answers.clear();
        for _ in 0..count {
            let answer = request(address, method, path, &headers, body).await;
            if let Some((pair, _)) = answer.header("set-cookie").split_once(';') {
                self.cookie = pair.to_owned();
            }
            self.answers.push(answer);
        }
        Ok(())
    }

    fn last(&self) -> Result<&Answer, String> {
        self.answers.last().ok_or_else(|| "nothing was asked".to_owned())
    }

    fn seen(&self, status: &str, more: &[String]) -> Done {
        let last = self.last()?;
        check(last.status.to_string() == status, || {
            format!("{} {:?}, not {status}", last.status, last.text())
        })?;
        let body = more.iter().find_map(|part| part.strip_prefix("body "));
        if let Some(body) = body {
            check(last.text() == body, || format!("the body is {:?}", last.text()))?;
        }
        look(&last.headers, more.iter().filter(|part| !part.starts_with("body ")))
    }

    fn shares(&self, shares: &[&str]) -> Done {
        for share in shares {
            let (name, count) = share.split_once('=').unwrap();
            let found = self.answers.iter().filter(|answer| answer.text() == name).count();
            check(found.to_string() == count, || format!("{found} of {name}, not {count}"))?;
        }
        Ok(())
    }

    fn distinct(&self) -> usize {
        let mut bodies: Vec<_> = self.answers.iter().map(Answer::text).collect();
        bodies.sort();
        bodies.dedup();
        bodies.len()
    }

    fn smaller(&self) -> Done {
        let now = self.last()?.body.len();
        let before = self.earlier.as_ref().map_or(0, |answer| answer.body.len());
        check(now < before, || format!("{now} bytes after {before}"))
    }

    async fn hold(&mut self, count: usize, path: &str) -> Done {
        let address = self.address().await;
        for _ in 0..count {
            let path = path.to_owned();
            self.held
                .push(tokio::spawn(async move { request(address, "GET", &path, &[], b"").await }));
        }
        Ok(())
    }

    async fn done(&mut self, status: &str) -> Done {
        for held in std::mem::take(&mut self.held) {
            let answer = held.await.unwrap();
            check(answer.status.to_string() == status, || format!("{}", answer.status))?;
        }
        Ok(())
    }

    async fn expect(&mut self, path: &str) -> Done {
        let mut client = Http1::connect(self.address().await).await;
        let head = "host: test\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
        client.send(&format!("POST {path} HTTP/1.1\r\n{head}")).await;
        let (status, _) = client.head().await.ok_or("no answer")?;
        check(status == 100, || format!("{status}, not 100"))?;
        client.send("body").await;
        Ok(())
    }

    async fn until(&self, of: &str, what: &str, n: &str, now: impl Fn(&Origin) -> usize) -> Done {
        let wanted: usize = n.parse().unwrap();
        let origin = self.world.origin(of);
        eventually(&format!("{what} {of} = {n}, now {}", now(origin)), async || {
            (now(origin) == wanted).then_some(())
        })
        .await;
        Ok(())
    }

    async fn admin(&self, path: &str, more: &[String]) -> Done {
        let page = self.world.proxy().admin_text(path).await;
        for part in more {
            let (verb, text) = part.split_once(' ').unwrap();
            let text = self.world.fill(text);
            let wanted = match verb {
                "has" => true,
                "lacks" => false,
                other => panic!("{other}?"),
            };
            check(page.contains(&text) == wanted, || format!("{verb} {text:?}: {page}"))?;
        }
        Ok(())
    }
}

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap()
}

fn check(good: bool, fault: impl FnOnce() -> String) -> Done {
    if good { Ok(()) } else { Err(fault()) }
}

fn script(status: u16, more: &[String]) -> Script {
    let mut script = Script::status(status);
    for part in more {
        match part.split_once(' ').unwrap_or((part, "")) {
            ("held", _) => script.held = true,
            ("text", size) => script.body = Some(text(size.parse().unwrap()).into()),
            (name, value) if name.ends_with(':') => {
                let name: http::HeaderName = name[..name.len() - 1].parse().unwrap();
                script.headers.append(name, value.parse().unwrap());
            }
            _ => panic!("an origin does not {part:?}"),
        }
    }
    script
}

/// Text that can be compressed, harder with more effort.
fn text(size: usize) -> String {
    let lines = (0_u64..).map(|n| format!("line {} of {}\n", n * n % 997, n * 7 % 13));
    let mut text = String::new();
    for line in lines {
        if text.len() >= size {
            break;
        }
        text.push_str(&line);
    }
    text.truncate(size);
    text
}

fn gzip() -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"a body").unwrap();
    encoder.finish().unwrap()
}

/// Headers by `name: pattern`, where `*` is any part, and `!name` for none.
fn look<'a>(headers: &HeaderMap, wanted: impl Iterator<Item = &'a String>) -> Done {
    for part in wanted {
        let (name, pattern) = match part.strip_prefix('!') {
            Some(name) => (name, None),
            None => {
                let (name, pattern) = part.split_once(": ").unwrap_or_else(|| panic!("{part:?}"));
                (name, Some(pattern))
            }
        };
        let found: Vec<_> =
            headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        let found = (!found.is_empty()).then(|| found.join(", "));
        let fits = match (&found, pattern) {
            (None, None) => true,
            (Some(found), Some(pattern)) => matches(pattern, found),
            _ => false,
        };
        check(fits, || format!("{name} is {found:?}, not {pattern:?}"))?;
    }
    Ok(())
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut rest = text;
    let parts: Vec<_> = pattern.split('*').collect();
    for (index, part) in parts.iter().enumerate() {
        let found = match (index == 0, index + 1 == parts.len()) {
            (true, true) => return rest == *part,
            (true, false) => rest.strip_prefix(part),
            (false, true) => return rest.ends_with(part),
            (false, false) => rest.find(part).map(|at| &rest[at + part.len()..]),
        };
        match found {
            Some(left) => rest = left,
            None => return false,
        }
    }
    true
}

/// Whether the kernel has a keepalive timer on a connection to the origin.
fn probed(origin: &Origin) -> Done {
    let port = format!(":{:04X}", origin.address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let timers: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(2).is_some_and(|remote| remote.ends_with(&port)))
        .filter_map(|fields| fields.get(5).map(|timer| (*timer).to_owned()))
        .collect();
    // 02 is the timer of keepalive; behind the colon are hundredths of a second.
    let within = |timer: &String| {
        let left = timer.split_once(':').filter(|(kind, _)| *kind == "02");
        left.and_then(|(_, left)| u64::from_str_radix(left, 16).ok()).is_some_and(|n| n <= 1_000)
    };
    check(timers.iter().any(within), || format!("{timers:?}"))
}
