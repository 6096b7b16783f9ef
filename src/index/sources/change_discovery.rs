//! IIIF Change Discovery 1.0: a stream of changes, newest page last, and the updates that follow from it.

use std::collections::HashSet;
use std::time::UNIX_EPOCH;

use serde::Deserialize;

/// The stream itself, or one page of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ChangePage {
    #[serde(rename = "type", alias = "@type")]
    kind: Option<serde_json::Value>,
    last: Option<ChangeLink>,
    prev: Option<ChangeLink>,
    #[serde(rename = "orderedItems")]
    items: Vec<ChangeActivity>,
}

/// A link to something: its URL, or an object with an id.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct ChangeLink(serde_json::Value);

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ChangeActivity {
    #[serde(rename = "type", alias = "@type")]
    kind: String,
    object: Option<ChangeLink>,
    target: Option<ChangeLink>,
    end_time: Option<String>,
    start_time: Option<String>,
}

/// Changes of a stream, the newest of each document only.
#[derive(Debug, Default)]
pub(crate) struct LatestChanges {
    /// Documents to fetch.
    pub(crate) fetch: Vec<String>,
    /// Documents that are no more.
    pub(crate) gone: Vec<String>,
    /// Time of the newest change, as the stream writes it.
    pub(crate) newest: Option<String>,
    named: HashSet<String>,
    /// Changes up to then are known, in unix nanoseconds.
    watermark: Option<i128>,
    /// Changes before then were made again by a refresh.
    refreshed: Option<i128>,
}

impl ChangeLink {
    pub(crate) fn url(&self) -> Option<&str> {
        self.0.as_str().or_else(|| self.text("id")).or_else(|| self.text("@id"))
    }

    fn is_collection(&self) -> bool {
        self.text("type").or_else(|| self.text("@type")).is_some_and(|kind| kind.ends_with("Collection"))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }
}

impl ChangePage {
    /// Reads a stream; `None`: another kind of document.
    pub(crate) fn stream(body: &[u8]) -> Option<Self> {
        let page: Self = serde_json::from_slice(body).ok()?;
        let kind = page.kind.as_ref()?;
        let is = |kind: &serde_json::Value| kind.as_str().is_some_and(|kind| kind == "OrderedCollection");
        (is(kind) || kind.as_array().is_some_and(|kinds| kinds.iter().any(is))).then_some(page)
    }

    /// Reads one page.
    pub(crate) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// The newest page.
    pub(crate) fn last(&self) -> Option<&str> {
        self.last.as_ref()?.url()
    }

    /// The page before this one.
    pub(crate) fn prev(&self) -> Option<&str> {
        self.prev.as_ref()?.url()
    }
}

impl LatestChanges {
    /// Changes after `watermark`, which is a time in the form of [`LatestChanges::newest`].
    pub(crate) fn since(watermark: Option<&str>) -> Self {
        Self { watermark: watermark.and_then(time), ..Self::default() }
    }

    /// Takes in one page, newest change first. `false`: nothing older matters.
    pub(crate) fn take(&mut self, page: &ChangePage) -> bool {
        page.items.iter().rev().all(|activity| self.activity(activity))
    }

    /// Documents named so far.
    pub(crate) fn len(&self) -> usize {
        self.named.len()
    }

    fn activity(&mut self, activity: &ChangeActivity) -> bool {
        let ended = activity.end_time.as_deref().and_then(time);
        if let (Some(ended), Some(watermark)) = (ended, self.watermark)
            && ended <= watermark
        {
            return false;
        }
        if self.newest.is_none() && ended.is_some() {
            self.newest.clone_from(&activity.end_time);
        }
        // Every document that still exists has been named again since then; only removals may still be news, and to a new
        // index not even those.
        let is_old = ended.is_some() && ended < self.refreshed;
        if is_old && self.watermark.is_none() {
            return false;
        }
        let object = activity.object.as_ref();
        match activity.kind.as_str() {
            "Create" | "Update" | "Add" if !is_old => self.must_fetch(object),
            "Delete" | "Remove" => self.must_drop(object),
            "Move" => {
                if !is_old {
                    self.must_fetch(activity.target.as_ref());
                }
                self.must_drop(object);
            }
            "Refresh" => self.refreshed = activity.start_time.as_deref().and_then(time).or(ended),
            // Other kinds of activities are not about documents.
            _ => {}
        }
        true
    }

    fn must_fetch(&mut self, link: Option<&ChangeLink>) {
        // A collection has no images; its manifests have changes of their own.
        let url = link.filter(|link| !link.is_collection()).and_then(ChangeLink::url);
        if let Some(url) = url
            && self.named.insert(url.to_owned())
        {
            self.fetch.push(url.to_owned());
        }
    }

    fn must_drop(&mut self, link: Option<&ChangeLink>) {
        if let Some(url) = link.and_then(ChangeLink::url)
            && self.named.insert(url.to_owned())
        {
            self.gone.push(url.to_owned());
        }
    }
}

/// Unix nanoseconds of an `xsd:dateTime` (RFC 3339 with any offset; without one, UTC).
fn time(text: &str) -> Option<i128> {
    let text = text.trim();
    let date_end = text.find(['T', 't'])?;
    let offset_at = text[date_end..].find(['+', '-']).map(|at| at + date_end);
    let (clock, offset) = match offset_at {
        Some(at) => (text.get(..at)?, offset(text.get(at..)?)?),
        None => (text.trim_end_matches(['Z', 'z']), 0),
    };
    let time = humantime::parse_rfc3339_weak(clock).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(i128::try_from(since.as_nanos()).ok()? - i128::from(offset) * 1_000_000_000)
}

/// Seconds of `+02:00`.
fn offset(text: &str) -> Option<i64> {
    let (sign, rest) = text.split_at_checked(1)?;
    let (hours, minutes) = rest.split_once(':').or_else(|| rest.split_at_checked(2))?;
    let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().unwrap_or(0) * 60;
    Some(if sign == "-" { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_compared_whatever_their_offset() {
        assert_eq!(time("2026-01-01T02:00:00+02:00"), time("2026-01-01T00:00:00Z"));
        assert_eq!(time("2026-01-01T00:00:00.000Z"), time("2025-12-31T19:00:00-0500"));
        assert!(time("2026-01-01T00:00:00Z") < time("2026-01-01T00:00:00.5Z"));
        assert_eq!(time("yesterday"), None);
    }

    fn taken(changes: &mut LatestChanges, items: &serde_json::Value) -> bool {
        let page = serde_json::json!({"type": "OrderedCollectionPage", "orderedItems": items});
        changes.take(&ChangePage::read(page.to_string().as_bytes()).expect("a page"))
    }

    fn change(kind: &str, id: &str, hour: u32) -> serde_json::Value {
        serde_json::json!({
            "type": kind, "object": {"id": id, "type": "Manifest"}, "endTime": format!("2026-01-01T{hour:02}:00:00Z"),
        })
    }

    #[test]
    fn the_newest_change_of_each_document_counts() {
        let mut changes = LatestChanges::since(None);
        let all = [
            change("Create", "a", 1),
            change("Create", "b", 2),
            change("Delete", "a", 3),
            change("Update", "b", 4),
        ];
        assert!(taken(&mut changes, &all.into()));
        assert_eq!((changes.fetch, changes.gone), (vec!["b".to_owned()], vec!["a".to_owned()]));
        assert_eq!(changes.newest.as_deref(), Some("2026-01-01T04:00:00Z"));
    }

    #[test]
    fn what_is_not_newer_than_the_watermark_ends_the_walk() {
        let mut changes = LatestChanges::since(Some("2026-01-01T02:00:00Z"));
        let all = [change("Update", "a", 1), change("Update", "b", 2), change("Update", "c", 3)];
        assert!(!taken(&mut changes, &all.into()));
        assert_eq!(changes.fetch, ["c"]);
    }

    #[test]
    fn before_a_refresh_only_what_is_gone_matters_and_to_a_new_index_nothing() {
        let refresh = serde_json::json!({
            "type": "Refresh", "startTime": "2026-01-01T05:00:00Z", "endTime": "2026-01-01T06:00:00Z",
        });
        let all = serde_json::json!([
            change("Create", "old", 2),
            change("Delete", "lost", 3),
            change("Update", "a", 5),
            refresh,
        ]);
        let mut fresh = LatestChanges::since(None);
        assert!(!taken(&mut fresh, &all));
        assert_eq!((fresh.fetch, fresh.gone.len()), (vec!["a".to_owned()], 0));
        let mut known = LatestChanges::since(Some("2026-01-01T01:00:00Z"));
        assert!(taken(&mut known, &all));
        assert_eq!((known.fetch, known.gone), (vec!["a".to_owned()], vec!["lost".to_owned()]));
    }

    #[test]
    fn a_move_is_a_new_document_and_one_less_and_odd_activities_are_passed_over() {
        let mut changes = LatestChanges::since(None);
        let all = serde_json::json!([
            {"type": "Move", "object": "a", "target": {"id": "b", "type": "Manifest"}},
            {"type": "Like", "object": 7}, {"type": "Update", "object": [1]}, {"type": "Update"}, {"type": "Add", "object": {"id": "c", "type": "Collection"}},
        ]);
        assert!(taken(&mut changes, &all));
        assert_eq!((changes.fetch, changes.gone), (vec!["b".to_owned()], vec!["a".to_owned()]));
        assert_eq!(changes.newest, None, "level 0 has no times");
    }
}
