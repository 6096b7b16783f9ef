//! Numbers and times as people read them, and heals as rows of a table.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::index::history::HistoryEntry;
use crate::setup::{FindingState, SetupFinding};

/// A heal in a table.
pub(super) struct HealRow {
    pub(super) id: i64,
    pub(super) iso: String,
    pub(super) ago: String,
    pub(super) verdict: String,
    pub(super) rung: String,
    pub(super) took: String,
    pub(super) waiting: u32,
    pub(super) identifier: String,
}

pub(super) fn row(entry: HistoryEntry) -> HealRow {
    let HistoryEntry { id, heal } = entry;
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(heal.at).unwrap_or(0));
    HealRow {
        id,
        iso: humantime::format_rfc3339_seconds(at).to_string(),
        ago: ago(SystemTime::now().duration_since(at).unwrap_or_default()),
        verdict: heal.verdict,
        rung: heal.rung.unwrap_or_else(|| "–".to_owned()),
        took: took(heal.duration_ms),
        waiting: heal.waiting,
        identifier: heal.identifier,
    }
}

pub(super) fn took(ms: u64) -> String {
    if ms == 0 {
        "under 1 ms".to_owned()
    } else if ms < 1000 {
        format!("{ms} ms")
    } else {
        format!("{}.{} s", ms / 1000, ms % 1000 / 100)
    }
}

fn ago(since: Duration) -> String {
    match since.as_secs() {
        0..60 => "just now".to_owned(),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// 1234567 as 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// A finding in a list of them.
pub(super) struct SetupRow {
    pub(super) class: &'static str,
    pub(super) word: &'static str,
    pub(super) about: &'static str,
    pub(super) text: String,
}

/// A finding about the setup, for eyes.
pub(super) fn setup_row(finding: SetupFinding) -> SetupRow {
    let (class, word) = match finding.state {
        FindingState::Good => ("good", "good"),
        FindingState::Note => ("note", "to know"),
        FindingState::Bad => ("bad", "wrong"),
    };
    SetupRow { class, word, about: finding.about, text: finding.text }
}
