//! The upstreams of a configuration.

use std::sync::Arc;

use super::check::Check;
use super::{TlsError, Upstream, client_tls};
use crate::config::Settings;
use crate::config::settings::Route;
use crate::observe::UpstreamMeters;

impl Upstream {
    /// One for each distinct set of servers, in the order of the routes.
    pub fn of_routes(settings: &Settings, meters: &UpstreamMeters) -> Result<Vec<Arc<Self>>, TlsError> {
        let tls = client_tls(&settings.upstream)?;
        let mut made: Vec<(&Route, Arc<Self>)> = Vec::new();
        for route in &settings.routes {
            let same = made.iter().find(|(other, _)| other.shares_servers(route));
            let upstream = if let Some((_, upstream)) = same {
                Arc::clone(upstream)
            } else {
                let (url, bounds) = (&route.upstream, &settings.upstream);
                let mut upstream = Self::new(url, &route.connect, bounds, &tls, meters);
                // Routes that share their servers share what is known of them: one check is enough.
                let mut sharing = settings.routes.iter().filter(|other| other.shares_servers(route));
                let path = sharing.find_map(|other| other.health.as_deref());
                let check = path.map(|path| {
                    Check::new(path, url.authority.as_str(), &settings.server.name, &bounds.health)
                });
                upstream.check = check.flatten();
                Arc::new(upstream)
            };
            made.push((route, upstream));
        }
        Ok(made.into_iter().map(|(_, upstream)| upstream).collect())
    }
}
