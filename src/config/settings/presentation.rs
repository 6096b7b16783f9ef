//! `[presentation]` and `[rewrite]`: handling of documents on their way.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use crate::config::addresses::{Origin, UpstreamUrl};
use crate::config::value::As;
use crate::config::values::{Size, WholeNumber};

/// `[presentation]`
#[derive(Debug, Clone, PartialEq, Eq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
#[expect(clippy::struct_excessive_bools, reason = "four things that are each on or off")]
pub struct PresentationSettings {
    /// Requests for the same document at the same time share one upstream request.
    #[default(true)]
    pub collapse: bool,
    /// Shared documents at once whose request goes on when its viewers leave; beyond that a request ends with its viewers.
    /// Each holds at most `max_body` of memory.
    #[default(64)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub max_flights: usize,
    /// The longest document that is shared, repaired, learned and checked for missing pages; longer ones only stream by,
    /// and are counted.
    #[default(16 << 20)]
    #[serde(with = "As::<Size>")]
    #[schemars(extend("x-min" = ">0"))]
    pub max_body: usize,
    /// Mend JSON that is broken by a raw backslash, newline or tab in a label.
    #[default(true)]
    pub repair: bool,
    /// Rebuild canvases and manifests that lack pages which the index knows.
    #[default(true)]
    pub watch: bool,
    /// Serve the manifests of `index.sources` that are files under /manifests/, listed as a IIIF collection.
    pub manifests: bool,
}

/// `[rewrite]`
#[derive(Debug, Clone, PartialEq, Eq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct RewriteSettings {
    /// URLs of `server.public_hosts` in JSON, Location and Link become URLs of this host; not given: nothing is touched.
    #[serde(with = "As::<Option<Origin>>")]
    pub public_url: Option<UpstreamUrl>,
}
