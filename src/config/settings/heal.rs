//! `[heal]`: how images are brought back.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use crate::config::value::{As, WordList};
use crate::config::values::{ExpiryStatus, Pattern, Size, WholeNumber, secs};

/// `[heal]`
#[derive(Debug, Clone, PartialEq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct HealSettings {
    /// Heal at all; false makes a plain reverse proxy.
    #[default(true)]
    pub enabled: bool,
    /// The ways to heal, in the order in which they are tried.
    #[default(vec![Rung::Direct, Rung::Register, Rung::Variant, Rung::Visit, Rung::Rebuild])]
    #[serde(with = "As::<Vec<Rung>>")]
    pub ladder: Vec<Rung>,
    /// Image statuses that mean "expired".
    // UPSTREAM: a key that vanishes while the image is being opened makes the answer 501.
    #[default(vec![404, 501])]
    #[serde(with = "As::<Vec<ExpiryStatus>>")]
    pub statuses: Vec<u16>,
    /// Image statuses at which `direct` is tried (the canvas service or its Redis may be down).
    #[default(vec![404, 500, 502, 503, 504])]
    #[serde(with = "As::<Vec<ExpiryStatus>>")]
    pub direct_statuses: Vec<u16>,
    /// How long a viewer's tile is kept waiting (OpenSeadragon gives up at 30 s).
    #[default(secs(25))]
    #[serde(with = "As::<Duration>")]
    pub wait: Duration,
    /// How long a viewer's info.json is kept waiting (viewers wait for it without limit).
    #[default(secs(110))]
    #[serde(with = "As::<Duration>")]
    pub wait_info: Duration,
    /// How long one canvas request may take; it goes on without its viewers until then.
    // UPSTREAM: the service's own timeouts are 10 to 30 minutes.
    #[default(secs(10 * 60))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub timeout: Duration,
    /// Canvas requests at once per canvas service (it holds two connections per host itself).
    #[default(2)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub concurrency: usize,
    /// Manifests and other long documents that viewers have built at once per canvas service.
    #[default(4)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub document_concurrency: usize,
    /// Time after which a canvas request counts as a build: one that the service answered sooner came from storage, so a
    /// viewer's request waits no longer behind others that take longer.
    #[default(Duration::from_millis(250))]
    #[serde(with = "As::<Duration>")]
    pub build_after: Duration,
    /// Time after which a request to a canvas service passes its permit on to a waiting request; four for each permit at
    /// most do so.
    #[default(secs(10))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub hang_after: Duration,
    /// Viewers waiting at once at most, for heals, and for their turn at each canvas service; more get 503 and Retry-After.
    #[default(1000)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub max_waiting: usize,
    /// Images healed at once at most, including those that no viewer waits for any more; viewers of further ones get 503
    /// and Retry-After.
    #[default(10_000)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub max_flights: usize,
    /// Images that readers did not get and that are remembered at most, until they are seen well or for a day; as many again of
    /// those that no manifest names; 0: none.
    #[default(1000)]
    #[serde(with = "As::<WholeNumber>")]
    pub max_broken: usize,
    /// Requests for one image that are sent on before any is answered; further ones wait for the first answer; 0: all are
    /// sent on.
    #[default(16)]
    #[serde(with = "As::<WholeNumber>")]
    pub first_asks: usize,
    /// How long further requests wait for the first ones at most.
    #[default(Duration::from_millis(50))]
    #[serde(with = "As::<Duration>")]
    pub first_asks_wait: Duration,
    /// How much of the first error's body is held in memory while healing.
    #[default(64 * 1024)]
    #[serde(with = "As::<Size>")]
    pub max_held: usize,
    /// Heals that one client address may start in a minute.
    #[default(600)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub per_client: u32,
    /// Time between two requests of one canvas on one rung.
    #[default(secs(30))]
    #[serde(with = "As::<Duration>")]
    pub cooldown: Duration,
    /// How long a file that is truly missing is remembered as missing.
    #[default(secs(10 * 60))]
    #[serde(with = "As::<Duration>")]
    pub missing: Duration,
    /// Answer where the file of an image is proven to be gone: "off", the image server's own 404; "404" or "200", a grey
    /// picture of the requested size (JPEG or PNG, at most 4 megapixels) and an info.json, with that status.
    #[serde(with = "As::<MissingImage>")]
    pub missing_image: MissingImage,
    /// How long "this image is alive" is believed.
    #[default(secs(60))]
    #[serde(with = "As::<Duration>")]
    pub alive_for: Duration,
    /// How often a closed /resources/{uuid} is tried again.
    #[default(secs(60))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub resources_recheck: Duration,
    /// Failures in a row after which a canvas service is left alone.
    #[default(5)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub breaker_failures: u32,
    /// How long a canvas service is left alone at first.
    #[default(secs(1))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub breaker_open: Duration,
    /// The longest pause to which repeated failures grow.
    #[default(secs(60))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub backoff_max: Duration,
    /// Addresses of the canvas service, as addresses or networks: requests from there are echoes and never wait.
    #[serde(with = "As::<Vec<IpNet>>")]
    pub origins: Vec<IpNet>,
    /// Regular expression of the identifiers that are healed (all, when it is not given).
    #[serde(with = "As::<Option<Pattern>>")]
    pub identifiers: Option<Pattern>,
    /// A request with this header is not healed; believed from `server.trusted_proxies` only.
    #[serde(with = "As::<Option<HeaderName>>")]
    pub skip_header: Option<HeaderName>,
    /// Pages after the one being read that are healed ahead of the reader; 0: none.
    #[default(8)]
    #[serde(with = "As::<WholeNumber>")]
    pub ahead: usize,
    /// Heals everything indexed in the background after a mass expiry.
    pub sweep: bool,
    /// Images that a sweep probes in a second.
    #[default(20)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub sweep_rate: u32,
    /// Number of identifiers that expire within a time, as a sign that Redis was emptied.
    pub mass_expiry: MassExpirySettings,
}

/// `heal.missing_image`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingImage {
    /// The image server's own answer.
    #[default]
    Off,
    /// A picture with 404.
    NotFound,
    /// A picture with 200.
    Ok,
}

impl MissingImage {
    /// Status of the picture; `None`: there is none.
    pub fn status(self) -> Option<StatusCode> {
        match self {
            Self::Off => None,
            Self::NotFound => Some(StatusCode::NOT_FOUND),
            Self::Ok => Some(StatusCode::OK),
        }
    }
}

impl WordList for MissingImage {
    const WHAT: &'static str = "an answer for a missing image";
    const EXPECTED: &'static str = "\"off\", \"404\" or \"200\"";
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("404", Self::NotFound), ("200", Self::Ok)];
}

/// Rung of the ladder: one way to make an image resolvable again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    /// Ask the image server for the file itself (base64 identifier) on the viewer's behalf.
    Direct,
    /// Register the image alone: `GET {presentation}/{repository}/image/{path}?update=true`.
    Register,
    /// `GET canvas?disallow=…`: the canvas built beside the stored one.
    Variant,
    /// `GET canvas`.
    Visit,
    /// `GET canvas?update=true`.
    Rebuild,
}

impl HealSettings {
    /// True if only images whose file is known can be healed: no rung asks for a canvas.
    pub(crate) fn needs_files(&self) -> bool {
        self.ladder.iter().all(|rung| matches!(rung, Rung::Direct | Rung::Register))
    }
}

impl WordList for Rung {
    const WHAT: &'static str = "a rung of the ladder";
    const EXPECTED: &'static str = "a rung such as \"visit\"";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("direct", Self::Direct),
        ("register", Self::Register),
        ("variant", Self::Variant),
        ("visit", Self::Visit),
        ("rebuild", Self::Rebuild),
    ];
}

/// `heal.mass_expiry`
#[derive(Debug, Clone, Copy, PartialEq, Eq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct MassExpirySettings {
    /// Different expired identifiers.
    #[default(20)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub ids: usize,
    /// The time in which they must be seen.
    #[default(secs(10))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub within: Duration,
}
