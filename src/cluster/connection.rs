//! Connection to Redis: one server, the master that Sentinels name, or a Redis Cluster. All commands go over one
//! multiplexed connection, and pub/sub messages come over the same one (RESP3), so that both fail together.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisFuture, RedisResult, TlsCertificates, TlsMode, Value,
};

use crate::config::settings::{ClusterKind, ClusterSettings as Settings};

/// Connection of any kind. Cheap to clone.
#[derive(Clone)]
pub(super) enum RedisConnection {
    One(MultiplexedConnection),
    Many(ClusterConnection),
    #[cfg(test)]
    Simulated(super::simulated::SimulatedWire),
}

/// Connects and logs in. `hear` gets all messages that the server pushes.
pub(super) async fn connect<F>(settings: &Settings, hear: F) -> RedisResult<RedisConnection>
where
    F: Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
{
    #[cfg(test)]
    if let Some(redis) = super::simulated::current() {
        return redis.connect(hear).map(RedisConnection::Simulated);
    }
    let patience = settings.connect_timeout;
    // TCP_NODELAY: otherwise a command waits for the delayed acknowledgement of the one before: 40 ms.
    let at_once = TcpSettings::default().set_nodelay(true);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(patience));
    let authorities = authorities(settings).await?;
    match settings.kind {
        ClusterKind::Server => {
            let url = settings.urls.first().map(String::as_str).unwrap_or_default();
            let info = url.into_connection_info()?;
            let login = login(settings, info.redis_settings().clone());
            let info = info.set_redis_settings(login).set_tcp_settings(at_once);
            let client = match authorities {
                Some(authorities) => Client::build_with_tls(info, authorities)?,
                None => Client::open(info)?,
            };
            let config = config.set_push_sender(hear);
            Ok(RedisConnection::One(client.get_multiplexed_async_connection_with_config(&config).await?))
        }
        ClusterKind::Sentinel => {
            let mut sentinels = sentinels(settings, at_once, authorities)?.build()?;
            let config = config.set_push_sender(hear);
            Ok(RedisConnection::One(sentinels.get_async_connection_with_config(&config).await?))
        }
        ClusterKind::Cluster => {
            let mut nodes = ClusterClientBuilder::new(settings.urls.clone())
                .use_protocol(ProtocolVersion::RESP3)
                .connection_timeout(patience)
                .response_timeout(patience)
                .tcp_settings(at_once)
                .retries(3)
                .push_sender(hear);
            if let Some(username) = &settings.username {
                nodes = nodes.username(&username.0);
            }
            if let Some(password) = &settings.password {
                nodes = nodes.password(&password.0);
            }
            if let Some(authorities) = authorities {
                nodes = nodes.certs(authorities);
            }
            Ok(RedisConnection::Many(nodes.build()?.get_async_connection().await?))
        }
    }
}

/// Sentinels get no password of ours, which is the master's.
fn sentinels(
    settings: &Settings,
    at_once: TcpSettings,
    authorities: Option<TlsCertificates>,
) -> RedisResult<SentinelClientBuilder> {
    let address = |url: &String| Ok(url.as_str().into_connection_info()?.addr().clone());
    let addresses = settings.urls.iter().map(address).collect::<RedisResult<Vec<_>>>()?;
    let mut all = SentinelClientBuilder::new(addresses, &settings.master, SentinelServerType::Master)?
        .set_client_to_redis_protocol(ProtocolVersion::RESP3)
        .set_client_to_redis_tcp_settings(at_once);
    if settings.urls.iter().any(|url| url.starts_with("rediss:")) {
        all = all.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(authorities) = authorities {
        all = all.set_client_to_redis_certificates(authorities.clone());
        all = all.set_client_to_sentinel_certificates(authorities);
    }
    if let Some(username) = &settings.username {
        all = all.set_client_to_redis_username(&username.0);
    }
    if let Some(password) = &settings.password {
        all = all.set_client_to_redis_password(&password.0);
    }
    Ok(all)
}

/// Certificates of `[cluster] ca`, read at each connect, because the file may be renewed.
async fn authorities(settings: &Settings) -> RedisResult<Option<TlsCertificates>> {
    let Some(path) = &settings.ca else { return Ok(None) };
    let root_cert = Some(tokio::fs::read(path).await?);
    Ok(Some(TlsCertificates { client_tls: None, root_cert }))
}

fn login(settings: &Settings, mut info: RedisConnectionInfo) -> RedisConnectionInfo {
    if let Some(username) = &settings.username {
        info = info.set_username(&username.0);
    }
    if let Some(password) = &settings.password {
        info = info.set_password(&password.0);
    }
    info.set_protocol(ProtocolVersion::RESP3)
}

impl RedisConnection {
    pub(super) async fn subscribe(&mut self, channel: &str) -> RedisResult<()> {
        match self {
            Self::One(one) => one.subscribe(channel).await,
            Self::Many(many) => many.subscribe(channel).await,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.subscribe(channel),
        }
    }
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(cmd),
            Self::Many(many) => many.req_packed_command(cmd),
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(pipeline, offset, count),
            Self::Many(many) => many.req_packed_commands(pipeline, offset, count),
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Many(many) => many.get_db(),
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.get_db(),
        }
    }
}
