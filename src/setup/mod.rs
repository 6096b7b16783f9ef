//! Setup: what must be right before an image can be healed. One list of findings, for `serve`, the commands and the dashboard.
//!
//! `facts` gathers observations at a bounded cost: a sample of the index, and a few requests to each server. `findings`
//! interprets the facts, with advice. [`SetupStatus`] holds the last findings of a process that serves.

mod facts;
mod findings;

use std::io::{self, Write};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::task::spawn_blocking;

pub(crate) use facts::{SetupFacts, UnmappedCanvases};
pub use findings::{FindingState, SetupFinding};
pub(crate) use findings::{findings, image_base};

use crate::config::Settings;
use crate::heal::Healer;
use crate::index::Index;
use crate::observe::Metrics;
use facts::look_at_index;

/// Checks the setup: the index as [`check_index`] does, and each server by a few requests. Nothing is healed. `None`: the
/// look at the index did not end (it panicked, or the process ends), so no finding is known.
pub async fn check(
    healer: &Healer,
    index: &Arc<Index>,
    settings: &Arc<Settings>,
) -> Option<Vec<SetupFinding>> {
    let (own, index, of) = (healer.clone(), Arc::clone(index), Arc::clone(settings));
    let looked = spawn_blocking(move || look_at_index(&own, &index, &of)).await;
    let (mut facts, witnesses) =
        looked.inspect_err(|error| tracing::error!(%error, "the setup cannot be checked")).ok()?;
    facts.unreachable = Some(healer.unreachable().await);
    for witness in witnesses {
        let seen = healer.inspect(&witness).await;
        let is_there = matches!(seen.info_id, Some(Ok(_)));
        facts.deployment = Some(seen);
        if is_there {
            break;
        }
    }
    Some(findings(settings, &facts))
}

/// Checks the settings and the index, without a request.
pub fn check_index(healer: &Healer, index: &Index, settings: &Settings) -> Vec<SetupFinding> {
    findings(settings, &look_at_index(healer, index, settings).0)
}

/// Checks what the settings alone say.
pub fn check_settings(settings: &Settings) -> Vec<SetupFinding> {
    findings(settings, &SetupFacts::default())
}

/// The findings of the last check. Cheap to clone: clones share their content.
#[derive(Debug, Clone, Default)]
pub struct SetupStatus(Arc<ArcSwap<Vec<SetupFinding>>>);

impl SetupStatus {
    /// Findings of the last check that are not good.
    pub fn problems(&self) -> Vec<SetupFinding> {
        self.0.load().iter().filter(|finding| !finding.is_good()).cloned().collect()
    }

    /// Replaces the findings. The log has a line for each that is new and not as it should be, and one where all is well again.
    pub fn update(&self, findings: &[SetupFinding], metrics: &Metrics) {
        let before = self.0.swap(Arc::new(findings.to_vec()));
        let like = |all: &[SetupFinding], one: &SetupFinding| {
            all.iter().filter(|other| (other.about, other.state) == (one.about, one.state)).count()
        };
        for finding in findings.iter().filter(|finding| !finding.is_good()) {
            // Counts and seconds in a text may differ from check to check, so texts are compared without them.
            if like(findings, finding) > like(&before, finding) && !before.contains(finding) {
                tracing::warn!(
                    about = finding.about,
                    state = finding.state.as_str(),
                    "setup: {}: {}",
                    finding.about,
                    finding.text
                );
            }
        }
        for finding in findings.iter().filter(|finding| finding.is_good()) {
            if before.iter().any(|old| old.about == finding.about && !old.is_good()) {
                tracing::info!(
                    about = finding.about,
                    "setup: {}: in order again: {}",
                    finding.about,
                    finding.text
                );
            }
        }
        for (about, label) in findings::ABOUT {
            for state in [FindingState::Note, FindingState::Bad] {
                let is_so = |finding: &SetupFinding| (finding.about, finding.state) == (about, state);
                metrics.setup_finding(label, state.as_str(), findings.iter().any(is_so));
            }
        }
    }
}

/// Writes each finding that is not good, with advice.
pub fn write_problems(findings: &[SetupFinding], out: &mut dyn Write) -> io::Result<()> {
    for finding in findings.iter().filter(|finding| !finding.is_good()) {
        let word = if finding.is_bad() { "wrong" } else { "note" };
        writeln!(out, "{word}: {}: {}", finding.about, finding.text)?;
    }
    Ok(())
}
