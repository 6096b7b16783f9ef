//! Outcomes of requests: one closed list that drives status, header, metric label, log field and report line.

use std::fmt;

use prometheus_client::encoding::EncodeLabelValue;

/// Outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The upstream's first answer went out.
    Served,
    /// The image was expired, is back, and the viewer got it.
    Healed,
    /// The image server answered 404 and the index does not know the identifier.
    Unknown,
    /// The file itself is gone; the original 404 went out.
    Missing,
    /// A heal failed a short while ago; the original answer went out.
    Cooling,
    /// The heal goes on, and the viewer has to come back.
    Pending,
    /// The heal failed; the original answer went out.
    Failed,
    /// The proxy answered itself: a bad request, a limit, or an upstream that gave no answer.
    Refused,
}

impl Outcome {
    /// Every outcome, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Served,
        Self::Healed,
        Self::Unknown,
        Self::Missing,
        Self::Cooling,
        Self::Pending,
        Self::Failed,
        Self::Refused,
    ];

    /// Name in headers, labels, logs and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Healed => "healed",
            Self::Unknown => "unknown",
            Self::Missing => "missing",
            Self::Cooling => "cooling",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        fmt::Write::write_str(encoder, self.as_str())
    }
}
