//! Settings: the sections of the file, and the values that the program uses. One struct for each section, with everything
//! about a key at its field: its text for operators, its default, how it is written (`As`), its least value (`x-min`), and
//! whether it holds only after a restart (`x-reload`). The schema, the reference, `config show` and the reload read them.
//!
//! Durations and sizes are numbers, paths are joined to the folder of the file, and every host name is lower case.

mod admin;
mod cache;
mod cluster;
mod heal;
mod index;
mod log;
mod presentation;
mod route;
mod server;
mod source;
mod tls;
mod upstream;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::iiif::CanvasUrl;
use crate::iiif::image_url::ImageBases;

pub use super::addresses::{Listen, UpstreamUrl};
pub use super::values::{Pattern, Secret};
pub use admin::AdminSettings;
pub use cache::CacheSettings;
pub use cluster::{ClusterKind, ClusterSettings};
pub use heal::{HealSettings, MassExpirySettings, MissingImage, Rung};
pub use index::{CanvasRule, IndexSettings, IndexStore};
pub use log::{AccessLog, LogClient, LogFormat, LogSettings, TelemetrySettings};
pub use presentation::{PresentationSettings, RewriteSettings};
pub use route::{RouteKind, RouteSettings};
pub use server::{Http2Bounds, LEAST_HEAD, ServerSettings, is_among};
pub use source::{SourceKind, SourceSettings};
pub use tls::{TlsFiles, TlsSettings};
pub use upstream::{HealthSettings, Http2, Timeouts, UpstreamSettings};

/// Configuration of iiif-mender. Relative paths are relative to the folder of this file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
#[schemars(title = "iiif-mender")]
pub struct Settings {
    /// The listener that viewers reach.
    pub server: ServerSettings,
    /// The listener for the people who run it: /livez, /readyz, /metrics.
    pub admin: AdminSettings,
    /// Timeouts and bounds that hold for every upstream.
    pub upstream: UpstreamSettings,
    /// Routes of requests. The longest matching prefix wins; it is replaced by the path of `upstream`.
    pub routes: Vec<RouteSettings>,
    /// Index: which canvas owns which image.
    pub index: IndexSettings,
    /// Answers of image servers that are kept in memory.
    pub cache: CacheSettings,
    /// Healing: how images are brought back.
    pub heal: HealSettings,
    /// Handling of manifests and canvases on their way.
    pub presentation: PresentationSettings,
    /// Rewriting to another host name than the one written in the manifests.
    pub rewrite: RewriteSettings,
    /// Several iiif-menders that share their work by way of Redis.
    pub cluster: ClusterSettings,
    /// Log: level, format, lines of requests.
    pub log: LogSettings,
    /// Export of the spans of requests.
    #[schemars(extend("x-reload" = "restart"))]
    pub telemetry: TelemetrySettings,
}

impl Settings {
    /// Bases of image URLs: the image routes of each host that means us, their upstreams by whatever name, and the same
    /// paths of any other host.
    pub fn image_bases(&self) -> ImageBases {
        let mut bases = ImageBases::default();
        let own = self.rewrite.public_url.as_ref().map(|own| own.authority.as_str());
        let hosts = self.server.public_hosts.iter().map(String::as_str).chain(own);
        let routes = || self.routes.iter().filter(|route| route.kind == RouteKind::Image);
        for host in hosts {
            let is_for =
                |route: &&RouteSettings| route.hosts.is_empty() || route.hosts.iter().any(|own| own == host);
            for route in routes().filter(is_for) {
                bases.push(Some(host), &route.prefix);
            }
        }
        for route in routes() {
            bases.push(Some(route.upstream.authority.as_str()), &route.upstream.path);
        }
        let paths = routes().flat_map(|route| [route.prefix.as_str(), route.upstream.path.as_str()]);
        let mut anywhere: Vec<&str> = paths.filter(|path| *path != "/").collect();
        anywhere.sort_by_key(|path| std::cmp::Reverse(path.len()));
        anywhere.dedup();
        for path in anywhere {
            bases.push(None, path);
        }
        bases
    }

    /// Scheme and host by which readers reach us, for a URL of one of our hosts: those of `rewrite.public_url`, or the URL's
    /// own. `None`: the URL is of another host.
    pub(crate) fn public_origin(&self, url: &str) -> Option<String> {
        let (parsed, rewritten) = (CanvasUrl::parse(url)?, self.rewrite.public_url.as_ref());
        let own = rewritten.map(|own| own.authority.as_str());
        let mut hosts = self.server.public_hosts.iter().map(String::as_str).chain(own);
        hosts.any(|host| parsed.authority_is(host)).then(|| match rewritten {
            Some(own) => format!("{}://{}", own.scheme, own.authority),
            None => format!("{}://{}", parsed.scheme, parsed.authority),
        })
    }

    /// Scheme and host by which readers reach us: those of `rewrite.public_url`, or https and the first public host. `None`: no
    /// public host is known.
    pub(crate) fn first_public_origin(&self) -> Option<String> {
        self.public_origin(&format!("https://{}/", self.server.public_hosts.first()?))
    }

    /// The route of a request: the longest prefix of `path` among the routes that are for `host`, which is a host
    /// name in any case, with or without a port. A route's own host without a port stands for every port.
    pub fn route_of(&self, host: &str, path: &str) -> Option<usize> {
        // Most routes are for every host.
        let bare = || host.rsplit_once(':').map_or(host, |(name, _)| name);
        let is_for = |own: &String| own.eq_ignore_ascii_case(host) || own.eq_ignore_ascii_case(bare());
        self.routes.iter().position(|route| {
            path.starts_with(&route.prefix) && (route.hosts.is_empty() || route.hosts.iter().any(is_for))
        })
    }

    /// Timeouts of a viewer's request on `routes[route]`.
    pub fn timeouts(&self, route: usize) -> Timeouts {
        let (all, own) = (self.upstream.timeouts(), &self.routes[route]);
        let first_byte = match own.kind {
            // UPSTREAM: a canvas or a presentation that is built anew takes seconds, a long one minutes.
            RouteKind::Presentation => self.heal.timeout,
            RouteKind::Image | RouteKind::Plain => all.first_byte,
        };
        Timeouts {
            connect: own.connect_timeout.unwrap_or(all.connect),
            first_byte: own.first_byte_timeout.unwrap_or(first_byte),
            body: own.body_timeout.unwrap_or(all.body),
        }
    }

    /// Resolves relative paths against `folder`: that of the configuration file, as with nginx, so that a deployment means
    /// the same wherever it is started from.
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.server.tls.iter_mut().for_each(|files| files.resolve(folder));
        self.admin.resolve(folder);
        self.upstream.resolve(folder);
        self.index.resolve(folder);
        self.cluster.resolve(folder);
    }

    /// Keeps the old values of keys that hold only after a restart.
    pub(super) fn keep_until_restart(&mut self, old: &Self) {
        self.server.keep_until_restart(&old.server);
        self.admin.keep_until_restart(&old.admin);
        self.index.keep_until_restart(&old.index);
        self.log.keep_until_restart(&old.log);
        self.telemetry = old.telemetry.clone();
    }
}
