//! Numbers and times as people read them, and heals as rows of a table.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::labels::LabelledHeal;
use crate::index::history::HistoryEntry;
use crate::setup::FindingState;

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
    /// Label of the page, or its key.
    pub(super) page: String,
    pub(super) book: Option<String>,
    pub(super) reason: Option<String>,
}

pub(super) fn row(labelled: LabelledHeal) -> HealRow {
    let LabelledHeal { entry: HistoryEntry { id, heal }, label, book } = labelled;
    let (iso, ago) = time_of(heal.at);
    HealRow {
        id,
        iso,
        ago,
        verdict: heal.verdict,
        rung: heal.rung.unwrap_or_else(|| "–".to_owned()),
        took: took(heal.duration_ms),
        waiting: heal.waiting,
        page: label.unwrap_or_else(|| heal.identifier.clone()),
        book,
        reason: heal.reason,
        identifier: heal.identifier,
    }
}

/// A time in unix milliseconds: as RFC 3339, and how long ago.
pub(super) fn time_of(at: i64) -> (String, String) {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(at).unwrap_or(0));
    let since = SystemTime::now().duration_since(at).unwrap_or_default();
    (humantime::format_rfc3339_seconds(at).to_string(), ago(since))
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

impl FindingState {
    /// Word for the state on a page.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "to know",
            Self::Bad => "wrong",
        }
    }
}
