//! Labels of metrics. Their values come from closed lists only: a viewer must not be able to make a new series.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::outcome::Outcome;

/// A label value out of some closed list: the text of an enum's variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word(pub &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(self.0)
    }
}

/// Labels of `requests`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// `image`, `presentation`, `plain`, `manifests` or `none`.
    pub route: Word,
    /// How it ended.
    pub outcome: Outcome,
    /// `2xx`, `3xx`, …
    pub status: Word,
}

/// The label `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Kind {
    pub(super) kind: Word,
}

/// The label `lane`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LaneLabel {
    pub(super) lane: Word,
}

/// Labels of `canvas_requests`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CanvasLabels {
    pub(super) rung: Word,
    pub(super) answer: Word,
}

/// Labels of `heals`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HealLabels {
    pub(super) verdict: Word,
    pub(super) rung: Word,
    pub(super) lane: Word,
}
