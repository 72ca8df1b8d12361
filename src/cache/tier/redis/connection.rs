//! Connections: to one server or to the members of a cluster, by the same few words.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, ProtocolVersion, PushInfo, RedisError, RedisResult, Value,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::cache::tier::{Config, Error};

/// Longest wait for a connection to be there.
const CONNECTED_WITHIN: Duration = Duration::from_secs(1);

/// Pushed messages that may wait. If there are more, the connection is given up.
const PUSHES: usize = 1024;

/// How often a member of a cluster is asked anew after it said that another is to be asked.
const REDIRECTIONS: u32 = 3;

/// Where to connect to.
pub(super) struct Servers {
    infos: Vec<ConnectionInfo>,
    cluster: bool,
}

/// A connection. Clones share it; answers come to whoever asked.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// What the server says unasked.
pub(super) struct Pushes {
    pub(super) receiver: mpsc::Receiver<PushInfo>,
    /// Some did not fit.
    pub(super) overrun: Arc<Notify>,
}

impl Servers {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let infos = config.addresses.iter().enumerate();
        let infos = infos.map(|(n, address)| info(address).ok_or(Error::Address(n)));
        let servers = Self { infos: infos.collect::<Result<_, _>>()?, cluster: config.cluster };
        let is_database_0 = |info: &ConnectionInfo| info.redis_settings().db() == 0;
        let go_together =
            || servers.client(None).is_ok() && servers.infos.iter().all(is_database_0);
        if servers.cluster && !go_together() {
            return Err(Error::Cluster);
        }
        Ok(servers)
    }

    /// Two connections: one for lookups, which nothing large holds up, and one for all else with what is
    /// pushed on it. Several addresses are tried in turn.
    pub(super) async fn connect(&self) -> RedisResult<(Connection, Connection, Pushes)> {
        let (sender, receiver) = mpsc::channel(PUSHES);
        let pushes = Pushes { receiver, overrun: Arc::default() };
        let overrun = Arc::clone(&pushes.overrun);
        let push = move |push| sender.try_send(push).inspect_err(|_| overrun.notify_one());
        if self.cluster {
            let reads = self.client(None)?;
            let writes = self.client(Some(Box::new(push)))?;
            let reads = bounded(reads.get_async_connection()).await?;
            let writes = bounded(writes.get_async_connection()).await?;
            return Ok((Connection::Cluster(reads), Connection::Cluster(writes), pushes));
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let with_pushes = config.clone().set_push_sender(push);
        let mut last = RedisError::from((ErrorKind::InvalidClientConfig, "no address"));
        for info in &self.infos {
            let client = Client::open(info.clone())?;
            let both = async {
                let reads = client.get_multiplexed_async_connection_with_config(&config).await?;
                let writes =
                    client.get_multiplexed_async_connection_with_config(&with_pushes).await?;
                Ok((Connection::Single(reads), Connection::Single(writes)))
            };
            match bounded(both).await {
                Ok((reads, writes)) => return Ok((reads, writes, pushes)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn client(&self, push: Option<PushSender>) -> RedisResult<ClusterClient> {
        let builder = ClusterClientBuilder::new(self.infos.iter().cloned())
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(CONNECTED_WITHIN)
            .response_timeout(super::WRITTEN_WITHIN)
            .retries(REDIRECTIONS);
        match push {
            Some(push) => builder.push_sender(push).build(),
            None => builder.build(),
        }
    }
}

type PushSender = Box<
    dyn Fn(PushInfo) -> Result<(), mpsc::error::TrySendError<PushInfo>> + Send + Sync + 'static,
>;

async fn bounded<T>(connecting: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    timeout(CONNECTED_WITHIN, connecting).await.unwrap_or_else(|_| Err(late()))
}

/// The error of an answer that did not come.
pub(super) fn late() -> RedisError {
    RedisError::from((ErrorKind::Io, "no answer in time"))
}

impl Connection {
    /// Sends a command. An error of the server is an error.
    pub(super) async fn ask(&self, command: &Cmd) -> RedisResult<Value> {
        let value = match self {
            Self::Single(connection) => connection.clone().req_packed_command(command).await,
            Self::Cluster(connection) => connection.clone().req_packed_command(command).await,
        };
        value?.extract_error()
    }

    pub(super) async fn subscribe(&self, channel: &str) -> RedisResult<()> {
        match self {
            Self::Single(connection) => connection.clone().subscribe(channel).await,
            Self::Cluster(connection) => connection.clone().subscribe(channel).await,
        }
    }
}

fn info(address: &str) -> Option<ConnectionInfo> {
    let url = if address.contains("://") {
        address.to_owned()
    } else {
        // Without a port it would be taken for that of Redis.
        address.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok())?;
        format!("redis://{address}")
    };
    let info = url.into_connection_info().ok()?;
    if !matches!(info.addr(), ConnectionAddr::Tcp(..)) {
        return None;
    }
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Some(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(addresses: &[&str], cluster: bool) -> Result<Servers, Error> {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        let timeout = Duration::from_millis(50);
        Servers::new(&Config { addresses, cluster, timeout, prefix: String::new() })
    }

    #[test]
    fn addresses_are_checked_and_not_shown() {
        let good = ["127.0.0.1:6379", "cache.example:7000", "[::1]:6379", "redis://u:p@cache:1/2"];
        servers(&good, false).unwrap();
        for bad in
            ["", "cache", "cache:", "cache:70000", "http://cache:1", "unix:///tmp/s", "a b:1"]
        {
            assert_eq!(servers(&["cache:1", bad], false).err(), Some(Error::Address(1)), "{bad}");
        }
        assert_eq!(servers(&["rediss://cache:1"], false).err(), Some(Error::Address(0)));
        servers(&["redis://:p@a:1", "redis://:p@b:1"], true).unwrap();
        for other in ["redis://:q@b:1", "redis://:p@b:1/1"] {
            assert_eq!(servers(&["redis://:p@a:1", other], true).err(), Some(Error::Cluster));
        }
    }
}
