//! Broken now: the images that readers do not get, as a page, as JSON and as CSV.

use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use http::{Response, StatusCode};
use serde::Serialize;

use super::AdminState;
use super::answer::{self, ApiProblem, json};
use super::format::time_of;
use super::labels::BookLabels;
use super::queries::{ApiParameters, PagedList, aside, listing};
use crate::batch::report::csv::CsvTable;
use crate::heal::{BrokenFilter, BrokenImage, Referrer};
use crate::observe::counted;
use crate::upstream::Body;

/// A broken image, with the label of its book.
#[derive(Debug, Serialize)]
pub(super) struct LabelledBroken {
    #[serde(flatten)]
    image: BrokenImage,
    /// Label of the manifest.
    book: Option<String>,
    /// Advice for an operator.
    advice: &'static str,
    /// Page of the dashboard that shows it among its neighbours.
    #[serde(skip)]
    link: Option<String>,
}

/// Images that readers do not get.
#[derive(Template)]
#[template(path = "broken.html")]
pub(super) struct BrokenPage {
    here: &'static str,
    /// Kind that is shown; `None`: both.
    kind: Option<&'static str>,
    /// Images of books, and names that no manifest has.
    known: String,
    unknown: String,
    groups: Vec<BrokenGroup>,
}

/// Broken images of one kind.
struct BrokenGroup {
    kind: &'static str,
    title: &'static str,
    hint: &'static str,
    cards: Vec<BrokenView>,
    next: Option<String>,
}

struct BrokenView {
    key: String,
    title: String,
    book: Option<String>,
    reason: &'static str,
    class: &'static str,
    why: String,
    advice: &'static str,
    until: Option<String>,
    readers: String,
    requests: String,
    status: u16,
    first: (String, String),
    last: (String, String),
    referrers: Vec<Referrer>,
    link: Option<String>,
    picture: Option<String>,
    is_known: bool,
}

/// Kinds, by their names in the API.
const KINDS: [(&str, bool); 2] = [("known", true), ("unknown", false)];

/// Returns one page of broken images.
fn list(
    state: &AdminState,
    is_known: Option<bool>,
    query: &ApiParameters<'_>,
) -> Result<PagedList<LabelledBroken>, ApiProblem> {
    let (before, limit) = (query.number("before")?, query.limit(state)?);
    let filter = BrokenFilter { is_known, before, limit: limit as usize + 1 };
    let mut labels = BookLabels::of(&state.index);
    let mut rows = Vec::new();
    for image in state.healer.broken_images(filter)? {
        let (mut book, mut link) = (None, None);
        if let Some(owner) = &image.owner {
            book = labels.book(&owner.manifest)?.and_then(|book| book.label.clone());
            link = labels.link(&owner.manifest, &owner.canvas)?;
        }
        rows.push(LabelledBroken { advice: image.reason.advice(), image, book, link });
    }
    Ok(listing(rows, limit, |row| row.image.number))
}

/// Requested kind.
fn kind_of(query: &ApiParameters<'_>) -> Result<Option<(&'static str, bool)>, ApiProblem> {
    let Some(word) = query.text("kind") else { return Ok(None) };
    let kind = KINDS.into_iter().find(|(name, _)| *name == word);
    kind.map(Some).ok_or_else(|| ApiProblem::bad(format!("`kind` is known or unknown, not `{word}`")))
}

/// `GET /api/v1/broken`
pub(super) async fn api(
    state: &Arc<AdminState>,
    query: &str,
    accept: &str,
) -> Result<Response<Body>, ApiProblem> {
    let format = ApiParameters::read(query).text("format");
    let is_csv = match format.as_deref() {
        Some("csv") => true,
        Some("json") => false,
        Some(other) => return Err(ApiProblem::bad(format!("`format` is json or csv, not `{other}`"))),
        None => accept.contains("text/csv"),
    };
    let (state, query) = (Arc::clone(state), query.to_owned());
    let found = aside(move || {
        let query = ApiParameters::read(&query);
        list(&state, kind_of(&query)?.map(|(_, is_known)| is_known), &query)
    });
    let found = found.await?;
    if !is_csv {
        return json(StatusCode::OK, &found);
    }
    let text = table(&found.items).map_err(|error| ApiProblem::internal(&error.to_string()))?;
    Ok(answer::typed("text/csv; charset=utf-8; header=present", text))
}

/// The table (RFC 4180).
fn table(rows: &[LabelledBroken]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let names = [
        "reason",
        "why",
        "until",
        "book",
        "page",
        "image",
        "readers",
        "requests",
        "status",
        "first",
        "last",
        "manifest",
        "canvas",
        "picture",
        "referrers",
        "advice",
    ];
    let mut csv = CsvTable::new(names, &mut out)?;
    for LabelledBroken { image, book, advice, .. } in rows {
        let (owner, mut referrers) = (image.owner.as_ref(), String::new());
        for referrer in &image.referrers {
            let _ = write!(referrers, "{}{}", if referrers.is_empty() { "" } else { " " }, referrer.url);
        }
        let time = |at: i64| time_of(at).0;
        csv.line([
            image.reason.as_str(),
            &image.why,
            &image.until.map(time).unwrap_or_default(),
            book.as_deref().unwrap_or_default(),
            owner.and_then(|owner| owner.label.as_deref()).unwrap_or_default(),
            &image.identifier,
            &image.readers.to_string(),
            &image.requests.to_string(),
            &image.status.to_string(),
            &time(image.first),
            &time(image.last),
            owner.map(|owner| &*owner.manifest).unwrap_or_default(),
            owner.map(|owner| &*owner.canvas).unwrap_or_default(),
            image.picture.as_deref().unwrap_or_default(),
            &referrers,
            advice,
        ])?;
    }
    csv.end()?;
    Ok(out)
}

/// `/broken`
pub(super) async fn page(state: &Arc<AdminState>, query: &str) -> Result<BrokenPage, ApiProblem> {
    let (state, query) = (Arc::clone(state), query.to_owned());
    aside(move || {
        let query = ApiParameters::read(&query);
        let wanted = kind_of(&query)?;
        let now = state.metrics.snapshot().now;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let mut groups = Vec::new();
        for (kind, is_known) in KINDS.into_iter().filter(|kind| wanted.is_none_or(|wanted| wanted == *kind)) {
            let PagedList { items, next } = list(&state, Some(is_known), &query)?;
            let (title, hint) = if is_known {
                ("Pages of books", "A manifest in the index names them.")
            } else {
                ("In no manifest", "No manifest in the index names them, so they cannot be healed: index the manifest, or correct the page that asks for them.")
            };
            groups.push(BrokenGroup {
                kind,
                title,
                hint,
                cards: items.into_iter().map(|row| view(row, is_known)).collect(),
                next: next.map(|before| format!("/broken?kind={kind}&before={before}")),
            });
        }
        let known = counted(count(now.broken_images), "image");
        let unknown = counted(count(now.unknown_images), "name");
        Ok(BrokenPage { here: "/broken", kind: wanted.map(|(kind, _)| kind), known, unknown, groups })
    })
    .await
}

fn view(row: LabelledBroken, is_known: bool) -> BrokenView {
    let LabelledBroken { image, book, advice, link } = row;
    let or_more = if image.readers >= BrokenImage::MOST_READERS { " or more" } else { "" };
    let readers = format!("{}{or_more}", counted(image.readers, "reader"));
    let label = image.owner.as_ref().and_then(|owner| owner.label.clone());
    BrokenView {
        title: label.unwrap_or_else(|| image.identifier.clone()),
        book: book.or_else(|| image.owner.map(|owner| owner.manifest)),
        reason: image.reason.label(),
        class: image.reason.class(),
        why: image.why,
        advice,
        until: image.until.map(|until| time_of(until).0),
        readers,
        requests: counted(image.requests, "request"),
        status: image.status,
        first: time_of(image.first),
        last: time_of(image.last),
        referrers: image.referrers,
        link,
        picture: image.picture,
        is_known,
        key: image.identifier,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::heal::BrokenReason;

    #[test]
    fn every_reason_is_in_the_api_and_in_the_manual() {
        let schema = schemars::schema_for!(BrokenReason).to_value();
        let reasons = schema["oneOf"].as_array().expect("a reason each");
        let words: Vec<&Value> = reasons.iter().map(|reason| &reason["const"]).collect();
        let api: Value = serde_json::from_str(super::super::OPENAPI).expect("JSON");
        let listed = &api["components"]["schemas"]["Broken"]["properties"]["reason"]["enum"];
        assert_eq!(listed.as_array().expect("a list").iter().collect::<Vec<_>>(), words);
        let manual = include_str!("../../docs/OPERATIONS.md");
        for word in words {
            let reason: BrokenReason = serde_json::from_value(word.clone()).expect("a reason");
            assert_eq!(word, reason.as_str());
            let row = manual.lines().find(|line| line.starts_with(&format!("| `{}` |", reason.as_str())));
            let row = row.unwrap_or_else(|| panic!("no row of {word}"));
            assert!(row.contains(&format!("| {} |", reason.advice())), "{row}");
        }
    }
}
