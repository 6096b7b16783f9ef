//! `[admin]`, as the file may say it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tls;
use crate::config::leaf::Text;
use crate::config::values::{Count, MaybeListen, Size};

/// `[admin]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Admin {
    /// Where to listen, or "off". Keep it away from the public: it tells a lot.
    pub listen: Option<Text<MaybeListen>>,
    /// File with the token that operators must show: this or `client_ca` is a must on any address but a loopback one.
    pub token_file: Option<Text<PathBuf>>,
    /// Certificate and key, to speak TLS with operators.
    pub tls: Option<Tls>,
    /// PEM file with certificate authorities: whoever shows a certificate of theirs is an operator. Needs `tls`.
    pub client_ca: Option<Text<PathBuf>>,
    /// Connections at once; for each that comes then, one that rests or is stuck is closed.
    pub max_connections: Option<Text<Count>>,
    /// Pages at once that are told what happens as it happens.
    pub max_live: Option<Text<Count>>,
    /// Acts (heal, rebuild, reload and the like) in a second, of all operators together; three times as many at once.
    pub acts: Option<Text<Count>>,
    /// The longest body of an act.
    pub max_body: Option<Text<Size>>,
    /// Entries of one answer at most.
    pub max_entries: Option<Text<Count>>,
}
