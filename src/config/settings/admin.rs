//! `[admin]`: the dashboard, the API, `/livez`, `/readyz`, `/metrics`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use super::tls::TlsFiles;
use crate::config::addresses::{MaybeListen, local};
use crate::config::value::As;
use crate::config::values::{Size, WholeNumber, secs};
use crate::config::viewer_url::ViewerUrl;

/// `[admin]`
#[derive(Debug, Clone, PartialEq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct AdminSettings {
    /// Address of the admin listener, or "off". Keep it away from the public: its pages hold internals.
    #[default(Some(local(9090)))]
    #[serde(with = "As::<MaybeListen>")]
    #[schemars(extend("x-reload" = "restart"))]
    pub listen: Option<SocketAddr>,
    /// File with the token that operators must show: this or `client_ca` is a must on any address but a loopback one.
    #[serde(with = "As::<Option<PathBuf>>")]
    pub token_file: Option<PathBuf>,
    /// Certificate and key, to speak TLS with operators.
    #[schemars(with = "TlsFiles")]
    pub tls: Option<TlsFiles>,
    /// PEM file with certificate authorities: a client with a certificate of theirs is an operator. Needs `tls`.
    #[serde(with = "As::<Option<PathBuf>>")]
    #[schemars(extend("x-reload" = "restart"))]
    pub client_ca: Option<PathBuf>,
    /// Connections at once; each further one closes one that rests or is stuck.
    #[default(64)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0", "x-reload" = "restart"))]
    pub max_connections: usize,
    /// Live (SSE) pages at once.
    #[default(16)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0", "x-reload" = "restart"))]
    pub max_live: usize,
    /// Rate limit of admin POSTs (heal, rebuild, reload and the like) per second, for all operators together; burst: three
    /// times as many.
    #[default(10)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub acts: u32,
    /// Longest body of an admin POST.
    #[default(16 * 1024)]
    #[serde(with = "As::<Size>")]
    pub max_body: usize,
    /// Entries of one answer at most.
    #[default(200)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub max_entries: u32,
    /// URL of a IIIF viewer, to which the dashboard links: `{manifest}` stands for the URL of a manifest.
    #[serde(with = "As::<Option<ViewerUrl>>")]
    pub viewer: Option<ViewerUrl>,
    /// How often the setup is checked while serving: a sample of the index, and a few requests to each server. The log, the
    /// dashboard and a metric report problems. "0s": never.
    #[default(secs(60))]
    #[serde(with = "As::<Duration>")]
    pub setup_check: Duration,
}

impl AdminSettings {
    /// True if operators must authenticate. Otherwise every client of the listener is one.
    pub fn requires_auth(&self) -> bool {
        self.token_file.is_some() || self.client_ca.is_some()
    }

    pub(in crate::config) fn resolve(&mut self, folder: &Path) {
        for path in [&mut self.token_file, &mut self.client_ca].into_iter().flatten() {
            *path = folder.join(&*path);
        }
        self.tls.iter_mut().for_each(|files| files.resolve(folder));
    }

    /// Keeps the old values of keys that hold only after a restart.
    pub(in crate::config) fn keep_until_restart(&mut self, old: &Self) {
        self.listen = old.listen;
        self.client_ca.clone_from(&old.client_ca);
        self.max_connections = old.max_connections;
        self.max_live = old.max_live;
        // Other certificate files are taken; turning TLS on or off waits for a restart.
        if self.tls.is_some() != old.tls.is_some() {
            self.tls.clone_from(&old.tls);
        }
    }
}
