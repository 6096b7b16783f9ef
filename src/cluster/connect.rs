//! The connection: one server, the master that Sentinels name, or a Redis Cluster. Every command goes over one
//! multiplexed connection, and news comes back over the same (RESP3), so that both live and die together.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisFuture, RedisResult, TlsMode, Value,
};

use crate::config::settings::{Cluster as Settings, ClusterKind};

/// A connection, whatever is behind it. Cheap to clone.
#[derive(Clone)]
pub(super) enum Wire {
    One(MultiplexedConnection),
    Many(ClusterConnection),
}

/// Connects and logs in. `hear` is given all that is pushed to us.
pub(super) async fn connect<F>(settings: &Settings, hear: F) -> RedisResult<Wire>
where
    F: Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
{
    let patience = settings.connect_timeout;
    // Without it a command stands behind the delayed acknowledgement of the one before: 40 ms.
    let at_once = TcpSettings::default().set_nodelay(true);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(patience));
    match settings.kind {
        ClusterKind::Server => {
            let url = settings.urls.first().map(String::as_str).unwrap_or_default();
            let info = url.into_connection_info()?;
            let login = login(settings, info.redis_settings().clone());
            let client = Client::open(info.set_redis_settings(login).set_tcp_settings(at_once))?;
            let config = config.set_push_sender(hear);
            Ok(Wire::One(client.get_multiplexed_async_connection_with_config(&config).await?))
        }
        ClusterKind::Sentinel => {
            let mut node = SentinelNodeConnectionInfo::default()
                .set_redis_connection_info(login(settings, RedisConnectionInfo::default()))
                .set_tcp_settings(at_once);
            if settings.urls.iter().any(|url| url.starts_with("rediss:")) {
                node = node.set_tls_mode(TlsMode::Secure);
            }
            let mut sentinels = SentinelClient::build(
                settings.urls.clone(),
                &settings.master,
                Some(node),
                SentinelServerType::Master,
            )?;
            let config = config.set_push_sender(hear);
            Ok(Wire::One(sentinels.get_async_connection_with_config(&config).await?))
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
                nodes = nodes.username(username);
            }
            if let Some(password) = &settings.password {
                nodes = nodes.password(password);
            }
            Ok(Wire::Many(nodes.build()?.get_async_connection().await?))
        }
    }
}

fn login(settings: &Settings, mut info: RedisConnectionInfo) -> RedisConnectionInfo {
    if let Some(username) = &settings.username {
        info = info.set_username(username);
    }
    if let Some(password) = &settings.password {
        info = info.set_password(password);
    }
    info.set_protocol(ProtocolVersion::RESP3)
}

impl Wire {
    pub(super) async fn subscribe(&mut self, channel: &str) -> RedisResult<()> {
        match self {
            Self::One(one) => one.subscribe(channel).await,
            Self::Many(many) => many.subscribe(channel).await,
        }
    }
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(cmd),
            Self::Many(many) => many.req_packed_command(cmd),
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
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Many(many) => many.get_db(),
        }
    }
}
