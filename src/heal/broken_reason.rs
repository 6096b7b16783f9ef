//! Reasons why readers do not get an image: a closed list.

use serde::Serialize;

/// `BrokenReason` says why readers do not get an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize, schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BrokenReason {
    /// The image's file is gone.
    Missing,
    /// The last heal failed, and none is tried until a pause is over.
    Cooling,
    /// No rung of the ladder brought the image back.
    Failed,
    /// A heal is under way, or took longer than a reader could wait.
    Pending,
    /// The next request heals it.
    Expired,
    /// No route leads to its canvas.
    NoRoute,
    /// Healing is off, or leaves the image out.
    Off,
    /// The image server failed.
    Error,
    /// No manifest names the image.
    Unknown,
}

impl BrokenReason {
    /// Name in the API.
    pub fn as_str(self) -> &'static str {
        self.words().0
    }

    /// Label for people.
    pub fn label(self) -> &'static str {
        self.words().1
    }

    /// Class in the dashboard: `bad` needs an operator, `note` may pass without one.
    pub fn class(self) -> &'static str {
        self.words().2
    }

    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Missing => ("missing", "file is gone", "bad"),
            Self::Cooling => ("cooling", "cooling down", "note"),
            Self::Failed => ("failed", "heal failed", "bad"),
            Self::Pending => ("pending", "being healed", "note"),
            Self::Expired => ("expired", "expired", "note"),
            Self::NoRoute => ("no_route", "no route", "bad"),
            Self::Off => ("off", "not healed", ""),
            Self::Error => ("error", "server error", "bad"),
            Self::Unknown => ("unknown", "unknown", ""),
        }
    }
}
