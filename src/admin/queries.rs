//! GET endpoints of the admin API.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::answer::{ApiProblem, json};
use super::health::{self, ManifestHealth};
use super::labels::{BookLabels, LabelledHeal};
use super::route::ApiQuery;
use super::step_log::HealRequest;
use super::{Admin, AdminState};
use crate::heal::BreakerState;
use crate::iiif::Identifier;
use crate::index::Owner;
use crate::index::browse::{CanvasRow, ManifestRow, SourceRow};
use crate::index::history::{HistoryEntry, HistoryFilter, HistoryPage};
use crate::upstream::{Body, ServerState, Upstream};

/// Default number of entries in one answer.
const LIMIT: u32 = 50;

/// A page of something: `next` is the cursor of the page behind it.
#[derive(Debug, Serialize)]
pub(super) struct PagedList<T> {
    pub(super) items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<i64>,
}

/// A manifest, and how its images are.
#[derive(Debug, Serialize)]
pub(super) struct ManifestDetail {
    #[serde(flatten)]
    pub(super) row: ManifestRow,
    pub(super) health: ManifestHealth,
}

/// A heal with its steps.
#[derive(Debug, Serialize)]
pub(super) struct HealDetail {
    #[serde(flatten)]
    pub(super) heal: LabelledHeal,
    /// Since the start only.
    pub(super) steps: Vec<HealRequest>,
}

/// The query, decoded.
pub(super) struct ApiParameters<'a>(HashMap<Cow<'a, str>, String>);

impl<'a> ApiParameters<'a> {
    pub(super) fn read(query: &'a str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace('+', " ");
            let value = percent_encoding::percent_decode_str(&value).decode_utf8_lossy().into_owned();
            (Cow::Borrowed(name), value)
        });
        Self(pairs.collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, ApiProblem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| ApiProblem::bad(format!("`{name}` must be a number, not `{text}`")))
    }

    pub(super) fn limit(&self, state: &AdminState) -> Result<u32, ApiProblem> {
        let most = state.settings.admin.max_entries;
        let Some(limit) = self.number("limit")? else { return Ok(LIMIT.min(most)) };
        match u32::try_from(limit) {
            Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
            _ => Err(ApiProblem::bad(format!("`limit` must be 1 to {most}"))),
        }
    }
}

/// Cuts `items`, of which one more than a page was read, to a page: the extra item shows that another page follows.
pub(super) fn listing<T>(mut items: Vec<T>, limit: u32, number: impl Fn(&T) -> i64) -> PagedList<T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| is_more).map(number);
    PagedList { items, next }
}

impl Admin {
    pub(super) async fn read(&self, read: ApiQuery, query: &str) -> Result<Response<Body>, ApiProblem> {
        let (state, query) = (&self.state, ApiParameters::read(query));
        match read {
            ApiQuery::Stats => json(StatusCode::OK, &state.metrics.snapshot()),
            ApiQuery::Servers => {
                let all = json!({ "items": servers(state), "canvas_services": canvas_services(state) });
                json(StatusCode::OK, &all)
            }
            ApiQuery::Heals => json(StatusCode::OK, &heals(state, &query)?),
            ApiQuery::Heal(id) => json(StatusCode::OK, &heal(state, id)?),
            ApiQuery::Images => {
                let words = query.text("q").ok_or_else(|| ApiProblem::bad("say what to look for: ?q="))?;
                let (limit, state) = (query.limit(state)?, Arc::clone(state));
                json(StatusCode::OK, &aside(move || images(&state, &words, limit)).await?)
            }
            ApiQuery::Sources => json(StatusCode::OK, &json!({ "items": sources(state).await? })),
            ApiQuery::Manifests => json(StatusCode::OK, &manifests(state, &query)?),
            ApiQuery::Manifest(id) => {
                let manifest =
                    state.index.manifest_row(id)?.ok_or_else(|| ApiProblem::not_found("no such manifest"))?;
                let page = canvases(state, id, &query)?;
                let manifest = with_health(state, vec![manifest])?.pop();
                let items = health::check_canvases(state, page.items).await;
                let canvases = PagedList { items, next: page.next };
                json(StatusCode::OK, &json!({ "manifest": manifest, "canvases": canvases }))
            }
            ApiQuery::Canvas(id) => {
                let row =
                    state.index.canvas_row(id)?.ok_or_else(|| ApiProblem::not_found("no such canvas"))?;
                let manifest = state.index.manifest_row(row.manifest)?;
                let may_ask = state.healer.is_allowed_canvas(&row.canvas);
                let canvas = health::check_canvases(state, vec![row]).await.pop();
                let canvas = json!({ "canvas": canvas, "manifest": manifest, "may_be_asked": may_ask });
                json(StatusCode::OK, &canvas)
            }
            ApiQuery::Thumbnail(key) => self.thumbnail(&key).await,
        }
    }

    /// Fetches the picture as the image server has it; heals nothing.
    async fn thumbnail(&self, key: &str) -> Result<Response<Body>, ApiProblem> {
        let indexed = self.state.healer.image_by_key(key, None);
        let known = !self.state.index.owners(key)?.is_empty();
        let indexed = indexed.filter(|_| known).ok_or_else(|| ApiProblem::not_found("no such image"))?;
        let picture = self.state.healer.thumbnail(&indexed).await;
        let picture = picture.map_err(|error| ApiProblem::new(StatusCode::BAD_GATEWAY, error.to_string()))?;
        let (head, body) = picture.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        // SECURITY: only JPEG is passed on. HTML from an upstream would run with the rights of the admin pages.
        if !head.status.is_success() || kind != Some("image/jpeg") {
            let status = if head.status.is_success() { StatusCode::BAD_GATEWAY } else { head.status };
            return Err(ApiProblem::new(status, "the image server has no picture of it now"));
        }
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
        Ok(response)
    }
}

pub(super) fn servers(state: &AdminState) -> Vec<ServerState> {
    Upstream::distinct(&state.upstreams).flat_map(|upstream| upstream.servers()).collect()
}

/// State of a canvas service.
#[derive(Debug, Serialize)]
pub(super) struct CanvasServiceView {
    pub(super) upstream: String,
    /// State of `variant`: whether the service builds beside the stored canvas. `honoured`, `ignored` or `unknown`.
    pub(super) variants: &'static str,
    pub(super) breaker: &'static str,
    /// Error of the last failed request since the last success.
    pub(super) last_error: Option<String>,
    /// Since when it only fails, unix milliseconds, while its breaker is not closed.
    pub(super) failing_since: Option<i64>,
    /// Time of the next trial request, unix milliseconds.
    pub(super) next_try: Option<i64>,
    pub(super) waiting_viewers: usize,
}

pub(super) fn canvas_services(state: &AdminState) -> Vec<CanvasServiceView> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let told = state.healer.canvas_services().into_iter().map(|service| CanvasServiceView {
        upstream: service.upstream,
        variants: service.variants,
        last_error: service.last_error,
        failing_since: service.breaker.open_for.map(|since| at(now.saturating_sub(since))),
        next_try: service.breaker.next_try.map(|rest| at(now + rest)),
        breaker: match service.breaker.state {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        },
        waiting_viewers: service.waiting_viewers,
    });
    told.collect()
}

pub(super) fn heals(
    state: &AdminState,
    query: &ApiParameters<'_>,
) -> Result<PagedList<LabelledHeal>, ApiProblem> {
    let verdict = query.text("verdict");
    if let Some(verdict) = verdict.as_deref().filter(|it| !["healed", "missing", "failed"].contains(it)) {
        return Err(ApiProblem::bad(format!("`verdict` is healed, missing or failed, not `{verdict}`")));
    }
    let filter = HistoryFilter {
        since: query.number("since")?,
        until: query.number("until")?,
        identifier: query.text("identifier"),
        canvas: query.text("canvas"),
        verdict,
        rung: query.text("rung"),
        request: query.text("request"),
    };
    let limit = query.limit(state)?;
    let page = HistoryPage { before: query.number("before")?, limit: limit + 1 };
    labelled(state, listing(state.index.history(&filter, page)?, limit, |entry| entry.id))
}

/// Heals of one page, with their labels.
fn labelled(
    state: &AdminState,
    page: PagedList<HistoryEntry>,
) -> Result<PagedList<LabelledHeal>, ApiProblem> {
    let mut labels = BookLabels::of(&state.index);
    let items = page.items.into_iter().map(|entry| labels.heal(entry));
    Ok(PagedList { items: items.collect::<Result<_, _>>()?, next: page.next })
}

pub(super) fn heal(state: &AdminState, id: i64) -> Result<HealDetail, ApiProblem> {
    let entry = state.index.heal(id)?.ok_or_else(|| ApiProblem::not_found("no such heal"))?;
    let request = entry.heal.request.as_deref().unwrap_or_default();
    let steps = state.step_log.steps(request, &entry.heal.identifier);
    Ok(HealDetail { heal: BookLabels::of(&state.index).heal(entry)?, steps })
}

/// Canvases of one manifest, page by page.
pub(super) fn canvases(
    state: &AdminState,
    manifest: i64,
    query: &ApiParameters<'_>,
) -> Result<PagedList<CanvasRow>, ApiProblem> {
    let (after, limit) = (query.number("after")?.unwrap_or(0), query.limit(state)?);
    Ok(listing(state.index.canvas_rows(manifest, after, limit + 1)?, limit, |row| row.id))
}

/// Lists the sources of manifests.
pub(super) async fn sources(state: &AdminState) -> Result<Vec<SourceRow>, ApiProblem> {
    let index = Arc::clone(&state.index);
    aside(move || Ok(index.collected()?)).await
}

pub(super) fn manifests(
    state: &AdminState,
    query: &ApiParameters<'_>,
) -> Result<PagedList<ManifestDetail>, ApiProblem> {
    let limit = query.limit(state)?;
    let (source, after) = (query.number("source")?, query.number("after")?.unwrap_or(0));
    let rows = state.index.manifest_rows(source, after, limit + 1)?;
    let PagedList { items, next } = listing(rows, limit, |row| row.id);
    Ok(PagedList { items: with_health(state, items)?, next })
}

fn with_health(state: &AdminState, rows: Vec<ManifestRow>) -> Result<Vec<ManifestDetail>, ApiProblem> {
    let names: Vec<&str> = rows.iter().map(|row| row.uri.as_str()).collect();
    let verdicts = state.index.verdicts(&names)?;
    let of = |row: &ManifestRow| {
        verdicts.get(&row.uri).map_or_else(Default::default, |known| ManifestHealth::of(row.images, known))
    };
    Ok(rows.into_iter().map(|row| ManifestDetail { health: of(&row), row }).collect())
}

/// Result of a search.
#[derive(Debug, Serialize)]
pub(super) struct SearchResult {
    /// Lookup key, if the text is one.
    pub(super) identifier: Option<String>,
    pub(super) owners: Vec<Owner>,
    pub(super) manifests: Vec<ManifestDetail>,
    /// Canvases whose label holds these words.
    pub(super) canvases: Vec<CanvasRow>,
    /// False: there are too many canvases to read all their labels within the time limit.
    pub(super) is_complete: bool,
}

/// Time limit for reading labels of canvases in a search.
const LABEL_TIMEOUT: Duration = Duration::from_millis(250);

/// A search reads all labels, 50 ms with 100,000 manifests: not on a thread that serves.
pub(super) async fn aside<T, F>(read: F) -> Result<T, ApiProblem>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiProblem> + Send + 'static,
{
    tokio::task::spawn_blocking(read).await.map_err(|error| ApiProblem::internal(&error.to_string()))?
}

/// Searches by what a person pastes: an identifier, the URL of an image or a canvas, or words of a label.
pub(super) fn images(state: &AdminState, words: &str, limit: u32) -> Result<SearchResult, ApiProblem> {
    let mut owners: Vec<Owner> = state.index.canvas(words)?;
    let in_url = state.index.key_in_url(words);
    let key = in_url.unwrap_or_else(|| Identifier::new(words).key().into_owned());
    let mut known = state.index.owners(&key)?.to_vec();
    let identifier = (!known.is_empty()).then_some(key);
    owners.append(&mut known);
    let manifests = with_health(state, state.index.manifests_named(words, limit)?)?;
    let is_name = identifier.is_some() || !owners.is_empty();
    let (canvases, is_complete) =
        if is_name { (Vec::new(), true) } else { state.index.canvases_named(words, limit, LABEL_TIMEOUT)? };
    Ok(SearchResult { identifier, owners, manifests, canvases, is_complete })
}
