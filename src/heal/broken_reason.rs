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

    /// Advice for an operator, as docs/OPERATIONS.md has it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Missing => "restore the file, then Forget: the next reader has it at once",
            Self::Cooling => "mend what is said of the canvas service, then Heal; or wait",
            Self::Failed => {
                "ask for the canvas by hand: was it moved or deleted, can the service read it from the repository?"
            }
            Self::Pending => "wait; if it stays so, look at the load of the canvas service",
            Self::Expired => "Heal, or wait for the next reader",
            Self::NoRoute => {
                "correct `server.public_hosts` or `[[routes]]`; the setup check shows an example"
            }
            Self::Off => "`heal.enabled` and `heal.identifiers` say so",
            Self::Error => {
                "look into the image server's own log; where it is one image alone, its file is damaged"
            }
            Self::Unknown => {
                "add its manifest to a source, or correct the pages that ask for it; names that were never there are mostly robots"
            }
        }
    }

    /// Name, label and class.
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
