//! The upstreams of a configuration.

use std::sync::Arc;

use super::active_health::HealthCheck;
use super::{TlsError, Upstream, client_tls};
use crate::config::Settings;
use crate::config::settings::RouteSettings;
use crate::observe::UpstreamMetrics;

/// Routing by the configuration: settings and upstreams. Read once for each request.
#[derive(Debug, Clone)]
pub struct Routing {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Upstreams in the order of `settings.routes`.
    pub upstreams: Vec<Arc<Upstream>>,
}

impl Upstream {
    /// Creates an upstream for each distinct set of servers, in the order of the routes. Servers that are also in `before`,
    /// with equal names, keep their connections and their health.
    pub fn for_routes(
        settings: &Settings,
        meters: &UpstreamMetrics,
        before: Option<(&Settings, &[Arc<Self>])>,
    ) -> Result<Vec<Arc<Self>>, TlsError> {
        let tls = client_tls(&settings.upstream)?;
        let before = before
            .filter(|(old, _)| old.upstream == settings.upstream && old.server.name == settings.server.name);
        let mut made: Vec<(&RouteSettings, Arc<Self>)> = Vec::new();
        for route in &settings.routes {
            let same = made.iter().find(|(other, _)| other.shares_servers(route));
            let stays = || {
                let (old, upstreams) = before?;
                let at = old.routes.iter().position(|other| other.shares_servers(route))?;
                let as_before = check_path(old, route) == check_path(settings, route);
                upstreams.get(at).filter(|_| as_before).cloned()
            };
            let upstream = if let Some((_, upstream)) = same {
                Arc::clone(upstream)
            } else if let Some(upstream) = stays() {
                upstream
            } else {
                let (url, bounds) = (&route.upstream, &settings.upstream);
                let mut upstream = Self::new(url, &route.connect, bounds, &tls, meters);
                let check = check_path(settings, route).map(|path| {
                    HealthCheck::new(path, url.authority.as_str(), &settings.server.name, &bounds.health)
                });
                upstream.check = check.flatten();
                Arc::new(upstream)
            };
            made.push((route, upstream));
        }
        Ok(made.into_iter().map(|(_, upstream)| upstream).collect())
    }

    /// Upstreams, each once: routes that lead to the same servers share one.
    pub fn distinct(all: &[Arc<Self>]) -> impl Iterator<Item = &Arc<Self>> {
        let is_first =
            |at: usize, it: &Arc<Self>| !all.iter().take(at).any(|earlier| Arc::ptr_eq(earlier, it));
        all.iter().enumerate().filter(move |(at, it)| is_first(*at, it)).map(|(_, it)| it)
    }
}

/// Path of the health check of a route's servers. Routes that share their servers share their health: one check is enough.
fn check_path<'s>(settings: &'s Settings, route: &RouteSettings) -> Option<&'s str> {
    let mut sharing = settings.routes.iter().filter(|other| other.shares_servers(route));
    sharing.find_map(|other| other.health.as_deref())
}
