//! What is shown, step by step. A step that has not the effect it tells of ends the story.

use std::time::Duration;

use http::{Method, StatusCode};
use nuncio_xds_server::ManagementServer;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::client::{Answer, Client};
use crate::gateway::Gateway;
use crate::origin::Origin;
use crate::{Failure, TOKEN, patient, say};

pub(crate) struct Story {
    pub(crate) gateway: Gateway,
    /// Red, blue and green.
    pub(crate) origins: [Origin; 3],
    pub(crate) management: ManagementServer,
    /// Of the gateway.
    pub(crate) client: Client,
    /// Of the management server's API.
    pub(crate) api: Client,
    /// Of the proxy's admin interface.
    pub(crate) admin: Client,
}

type Done = Result<(), Failure>;

impl Story {
    pub(crate) async fn tell(&mut self) -> Done {
        self.weights().await?;
        self.sessions().await?;
        self.health().await?;
        self.cache().await?;
        self.instance().await?;
        self.mistake().await?;
        self.refusal().await?;
        self.metrics().await
    }

    async fn weights(&mut self) -> Done {
        say("\nWeights: of the service `web`, red has 3 and blue has 1.")?;
        let shares = self.shares("/").await?;
        let [red, blue, _] = shares;
        expect(red.abs_diff(3 * blue) < 10, "about three to red for each to blue", &shares)
    }

    async fn sessions(&mut self) -> Done {
        say("\nSessions: a client of `carts` stays where it was first.")?;
        let first = self.get("/carts/1", &[]).await?;
        let cookie = first.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        say(&format!("  GET /carts/1 -> {}, set-cookie: {cookie}", first.origin()))?;
        let mut others = 0;
        for _ in 0..20 {
            let answer = self.get("/carts/1", &[("cookie", &cookie)]).await?;
            others += usize::from(answer.origin() != first.origin());
        }
        say(&format!("  20 more with that cookie: {} to {}", 20 - others, first.origin()))?;
        expect(others == 0, "all of them there", &others)
    }

    async fn health(&mut self) -> Done {
        say("\nHealth: an instance of `payments` that is not well gets nothing. Red turns ill.")?;
        self.origins[0].set_well(false);
        let start = Instant::now();
        while self.reds().await? > 0 {
            patient(start)?;
        }
        let after = start.elapsed().as_millis();
        say(&format!("  after {after} ms (3 checks, one each 100 ms): 0 of 8 requests to red"))?;
        self.origins[0].set_well(true);
        let start = Instant::now();
        while self.reds().await? == 0 {
            patient(start)?;
        }
        say(&format!("  red is well: {} ms later it is back", start.elapsed().as_millis()))?;
        Ok(())
    }

    async fn cache(&mut self) -> Done {
        say(
            "\nCache and compression: what is below /static/ is kept, and given in gzip to who takes it.",
        )?;
        let path = "/static/list";
        let mut sizes = Vec::new();
        for (headers, is_kept) in [
            (&[][..], false),
            (&[], true),
            (&[("accept-encoding", "gzip")], false),
            (&[("accept-encoding", "gzip")], true),
        ] {
            let answer = self.get(path, headers).await?;
            let kept = answer.header("cache-status");
            let coding = answer.header("content-encoding");
            let size = answer.body.len();
            say(&format!("  GET {path} -> {size:>5} bytes {coding:>4}, cache-status: {kept}"))?;
            expect(kept.contains("hit") == is_kept, "the second of a kind from the cache", &kept)?;
            sizes.push(size);
        }
        let whole = sizes[0] == sizes[1] && sizes[2] == sizes[3];
        expect(whole && sizes[2] * 5 < sizes[0], "less than a fifth in gzip", &sizes)
    }

    async fn instance(&mut self) -> Done {
        say("\nAn instance comes at runtime, without an edit:")?;
        let url = format!("http://{}", self.origins[2].address);
        say(&format!("  xds-server ctl --token-file token add web {url} --id green --weight 4"))?;
        let start = Instant::now();
        let body = json!({ "url": url, "id": "green", "weight": 4 });
        self.call(Method::POST, "/v1/services/web/instances", &body.to_string()).await?;
        while self.get("/", &[]).await?.origin() != "green" {
            patient(start)?;
        }
        say(&format!("  its first answer came {} ms after", start.elapsed().as_millis()))?;
        let shares = self.shares("/").await?;
        let [_, blue, green] = shares;
        expect(green.abs_diff(4 * blue) < 10, "about four to green for each to blue", &shares)
    }

    async fn mistake(&mut self) -> Done {
        say("\nA mistake in the file, and what the management server says of it:")?;
        self.gateway.edit("strategy: sticky_session", "strategy: sticky_sesion")?;
        let start = Instant::now();
        let said = loop {
            let status = self.management.status();
            if let Some(problem) = status.groups.iter().flat_map(|group| &group.errors).next() {
                break problem.to_string();
            }
            patient(start)?;
            sleep(Duration::from_millis(1)).await;
        };
        let (_, said) = said.split_once("gateway.yaml").unwrap_or(("", &said));
        say(&format!("  gateway.yaml{said}"))?;
        let answer = self.get("/", &[]).await?;
        say(&format!("  The proxy never saw it: GET / -> {} {}", answer.status, answer.origin()))?;
        Ok(())
    }

    async fn refusal(&mut self) -> Done {
        say(
            "\nA mistake that only the proxy can see: a second listener, at a port that red has already.",
        )?;
        let taken = format!("- {{ name: more, port: {} }}\n", self.origins[0].address.port());
        self.gateway.edit("\nservices:\n", &format!("{taken}\nservices:\n"))?;
        let start = Instant::now();
        let nack = loop {
            let status = self.management.status();
            let types = status.proxies.iter().flat_map(|proxy| &proxy.types);
            if let Some(nack) = types.filter_map(|of| of.last_nack.as_ref()).next() {
                break nack.message.clone();
            }
            patient(start)?;
            sleep(Duration::from_millis(1)).await;
        };
        say("  The proxy refused it (NACK), as `xds-server ctl proxies` tells:")?;
        nack.lines().try_for_each(|line| say(&format!("    {line}")))?;
        let answer = self.get("/", &[]).await?;
        say(&format!(
            "  It goes on with what it had: GET / -> {} {}",
            answer.status,
            answer.origin()
        ))?;
        Ok(self.gateway.write()?)
    }

    async fn metrics(&mut self) -> Done {
        say("\nWhat /metrics at the proxy's admin address says of it, among others:")?;
        let page = self.admin.get("/metrics").await?.text();
        for (name, label) in [
            ("gateway_loadbalancer_requests_total", "service=\"web\""),
            ("gateway_cache_hits_total", ""),
        ] {
            let of_name = |line: &&str| line.starts_with(name) && line.contains(label);
            let lines: Vec<_> = page.lines().filter(of_name).collect();
            lines.iter().try_for_each(|line| say(&format!("  {line}")))?;
            expect(!lines.is_empty(), name, &page)?;
        }
        Ok(())
    }

    /// An answer, which must be good.
    async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Failure> {
        let answer = self.client.get_with(path, headers).await?;
        match answer.status {
            StatusCode::OK => Ok(answer),
            status => Err(format!("GET {path}: {status} {}", answer.text()).into()),
        }
    }

    async fn call(&mut self, method: Method, path: &str, body: &str) -> Done {
        let token = format!("Bearer {TOKEN}");
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let answer = self.api.send(method, path, &headers, body).await?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(format!("{path}: {} {}", answer.status, answer.text()).into()),
        }
    }

    /// How many of 8 requests for a payment red answers.
    async fn reds(&mut self) -> Result<usize, Failure> {
        let mut reds = 0;
        for _ in 0..8 {
            reds += usize::from(self.get("/payments/1", &[]).await?.origin() == "red");
        }
        Ok(reds)
    }

    /// How many requests each origin got while this client sent a hundred. The other client takes turns
    /// too, so that the origins count.
    async fn shares(&mut self, path: &str) -> Result<[usize; 3], Failure> {
        let before = self.origins.each_ref().map(Origin::answered);
        for _ in 0..100 {
            self.get(path, &[]).await?;
        }
        let mut shares = self.origins.each_ref().map(Origin::answered);
        for (share, before) in shares.iter_mut().zip(before) {
            *share -= before;
        }
        let named = self.origins.iter().zip(shares).filter(|(_, share)| *share > 0);
        let named: Vec<_> = named.map(|(o, share)| format!("{share} to {}", o.name)).collect();
        say(&format!("  {} requests: {}", shares.iter().sum::<usize>(), named.join(", ")))?;
        Ok(shares)
    }
}

fn expect(holds: bool, what: &str, found: &impl std::fmt::Debug) -> Done {
    match holds {
        true => Ok(()),
        false => Err(format!("expected {what}, found {found:?}").into()),
    }
}
