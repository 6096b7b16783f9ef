//! Labels of metrics. Values come from closed lists only: a viewer must not be able to make a new series.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::outcome::Outcome;

/// A label value out of some closed list: the text of an enum's variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LabelValue(pub &'static str);

impl EncodeLabelValue for LabelValue {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(self.0)
    }
}

/// Labels of `requests`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// `image`, `presentation`, `plain`, `manifests` or `none`.
    pub route: LabelValue,
    /// Outcome of the request.
    pub outcome: Outcome,
    /// `2xx`, `3xx`, …
    pub status: LabelValue,
}

/// The label `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabel {
    pub(super) kind: LabelValue,
}

/// Labels of `setup_finding`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SetupLabels {
    pub(super) about: LabelValue,
    pub(super) state: LabelValue,
}

/// The label `lane`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LaneLabel {
    pub(super) lane: LabelValue,
}

/// Labels of `canvas_requests`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CanvasLabels {
    pub(super) rung: LabelValue,
    pub(super) answer: LabelValue,
}

/// Labels of `heals`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HealLabels {
    pub(super) verdict: LabelValue,
    pub(super) rung: LabelValue,
    pub(super) lane: LabelValue,
}
