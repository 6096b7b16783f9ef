//! `[cache]`: answers of image servers that are kept in memory.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use crate::config::value::As;
use crate::config::values::{Size, WholeNumber};

/// `[cache]`
#[derive(Debug, Clone, PartialEq, Eq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct CacheSettings {
    /// Memory for answers of image routes that state how long they may be kept (`Cache-Control: max-age`, `s-maxage` or
    /// `Expires`); no other answer is kept. 0: off. Another value begins with an empty cache.
    #[default(128 << 20)]
    #[serde(with = "As::<Size>")]
    pub memory: usize,
    /// The longest answer that is kept, and that readers of one tile share while it arrives.
    #[default(1 << 20)]
    #[serde(with = "As::<Size>")]
    #[schemars(extend("x-min" = ">0"))]
    pub max_body: usize,
    /// The longest time that an answer is fresh here, whatever longer time it allows itself.
    #[default(Duration::from_hours(1))]
    #[serde(with = "As::<Duration>")]
    pub max_age: Duration,
    /// How long after its lifetime an answer still goes out while the image server fails (no connection, no answer within 10 s, 500,
    /// 502, 503, 504) or its image cannot be healed. 0: never. Answers with `must-revalidate`, `proxy-revalidate` or
    /// `s-maxage` never do.
    #[default(Duration::from_hours(24))]
    #[serde(with = "As::<Duration>")]
    pub stale_if_error: Duration,
    /// How long a reader waits for another reader's request for the same tile, at most half of `heal.wait`, before sending one
    /// of its own.
    #[default(Duration::from_secs(10))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub collapse_wait: Duration,
    /// Pages behind the one being read of which the same is fetched and kept as the reader asks for: info.json, and the first
    /// tiles (5 requests a page). 0: none. It multiplies what readers ask the image server for.
    #[default(0)]
    #[serde(with = "As::<WholeNumber>")]
    pub prefetch: usize,
}
