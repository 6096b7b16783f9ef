//! HTML pages of the dashboard, with the data of the API. The server renders everything; the script only refreshes it.

use std::sync::Arc;

use askama::Template;
use http::Response;

use super::answer::{ApiProblem, typed};
use super::broken;
use super::collections::{ManifestView, collections, manifest_view};
use super::format::{HealRow, row, took};
use super::health::{self, CanvasHealth, ImageState};
use super::labels::BookLabels;
use super::overview::{OverviewPage, now};
use super::queries::{self, ApiParameters};
use super::route::DashboardPage;
use super::{Admin, AdminState};
use crate::observe::counted;
use crate::setup::{self, SetupFinding};
use crate::upstream::Body;

/// The pages, in the order of the navigation.
pub(super) const NAV: [(&str, &str); 5] = [
    ("/", "Now"),
    ("/broken", "Broken"),
    ("/collections", "Collections"),
    ("/heals", "Heals"),
    ("/setup", "Setup check"),
];

const HTML: &str = "text/html; charset=utf-8";

#[derive(Template)]
#[template(path = "heals.html")]
struct HealsPage {
    here: &'static str,
    heals: Vec<HealRow>,
    next: Option<String>,
    verdict: String,
    rung: String,
    identifier: String,
    request: String,
    is_filtered: bool,
    verdicts: [(&'static str, &'static str); 4],
    rungs: [(&'static str, &'static str); 5],
}

#[derive(Template)]
#[template(path = "heal.html")]
struct HealPage {
    here: &'static str,
    row: HealRow,
    sentence: String,
    canvas: Option<String>,
    manifest: Option<String>,
    request: Option<String>,
    link: Option<String>,
    lane: String,
    steps: Vec<HealView>,
}

struct HealView {
    rung: &'static str,
    answer: &'static str,
    reason: Option<String>,
    took: String,
    share: u64,
}

#[derive(Template)]
#[template(path = "manifest.html")]
struct ManifestPage {
    here: &'static str,
    has_cache: bool,
    name: String,
    uri: String,
    images: String,
    /// The manifest itself, and the same in a viewer (`[admin] viewer`).
    public: Option<String>,
    viewer: Option<String>,
    cards: Vec<ImageCard>,
    back: String,
    next: Option<String>,
}

struct ImageCard {
    key: String,
    label: String,
    state: &'static str,
    picture: String,
    /// URL of the picture for readers.
    public: Option<String>,
    has_picture: bool,
}

#[derive(Template)]
#[template(path = "search.html")]
struct SearchPage {
    here: &'static str,
    words: String,
    key: Option<String>,
    owners: Vec<OwnerView>,
    /// Pages whose label holds these words.
    pages: Vec<OwnerView>,
    is_complete: bool,
    /// The file of the image was last found to be gone.
    is_missing: bool,
    manifests: Vec<ManifestView>,
}

struct OwnerView {
    link: String,
    label: String,
    /// The book, or the URL of the canvas.
    about: String,
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage {
    here: &'static str,
    findings: Vec<SetupFinding>,
    is_sweeping: bool,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    here: &'static str,
    status: String,
    detail: String,
}

fn html(page: &impl Template) -> Result<Response<Body>, ApiProblem> {
    let text = page.render().map_err(|error| ApiProblem::internal(&error.to_string()))?;
    Ok(typed(HTML, text))
}

/// A problem for eyes.
pub(super) fn problem(problem: &ApiProblem) -> Option<Response<Body>> {
    let page =
        ProblemPage { here: "", status: problem.status().to_string(), detail: problem.detail().to_owned() };
    html(&page).ok()
}

impl Admin {
    pub(super) async fn page(&self, page: DashboardPage, query: &str) -> Result<Response<Body>, ApiProblem> {
        let (state, words) = (&*self.state, query);
        let query = ApiParameters::read(query);
        match page {
            DashboardPage::Now => {
                let has_cache = state.settings.cache.memory > 0;
                html(&OverviewPage { here: "/", live: now(state), has_cache })
            }
            DashboardPage::NowLive => html(&now(state)),
            DashboardPage::Heals => html(&heals(state, &query, words)?),
            DashboardPage::Heal(id) => html(&heal(state, id)?),
            DashboardPage::Broken => html(&broken::page(&self.state, words).await?),
            DashboardPage::Collections => html(&collections(state, &query).await?),
            DashboardPage::Manifest(id) => html(&manifest(state, id, &query).await?),
            DashboardPage::Search => {
                let (state, words) = (Arc::clone(&self.state), query.text("q").unwrap_or_default());
                html(&queries::aside(move || search(&state, &words)).await?)
            }
            DashboardPage::Setup => html(&check(state).await?),
        }
    }
}

fn heals(state: &AdminState, query: &ApiParameters<'_>, words: &str) -> Result<HealsPage, ApiProblem> {
    let listing = queries::heals(state, query)?;
    let text = |name| query.text(name).unwrap_or_default();
    let is_filtered =
        ["verdict", "rung", "identifier", "request"].into_iter().any(|name| query.text(name).is_some());
    let kept: Vec<&str> =
        words.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("before=")).collect();
    let next = listing.next.map(|before| {
        let before = format!("before={before}");
        format!("/heals?{}", kept.iter().copied().chain([&*before]).collect::<Vec<_>>().join("&"))
    });
    Ok(HealsPage {
        here: "/heals",
        heals: listing.items.into_iter().map(row).collect(),
        next,
        verdict: text("verdict"),
        rung: text("rung"),
        identifier: text("identifier"),
        request: text("request"),
        is_filtered,
        verdicts: [("", "any"), ("healed", "healed"), ("missing", "missing"), ("failed", "failed")],
        rungs: [
            ("", "any"),
            ("direct", "direct"),
            ("register", "register"),
            ("visit", "visit"),
            ("rebuild", "rebuild"),
        ],
    })
}

fn heal(state: &AdminState, id: i64) -> Result<HealPage, ApiProblem> {
    let detail = queries::heal(state, id)?;
    let longest = detail.steps.iter().map(|step| step.duration_ms).max().unwrap_or(1).max(1);
    let steps = detail.steps.iter().map(|step| HealView {
        rung: step.rung,
        answer: step.answer,
        reason: step.reason.clone(),
        took: took(step.duration_ms),
        share: (step.duration_ms * 100 / longest).max(1),
    });
    let steps = steps.collect();
    let told = detail.heal.entry.heal.clone();
    let link = match (&told.manifest, &told.canvas) {
        (Some(manifest), Some(canvas)) => BookLabels::of(&state.index).link(manifest, canvas)?,
        _ => None,
    };
    let waited = match told.waiting {
        0 => "Nobody waited for it.".to_owned(),
        1 => "One viewer waited for it.".to_owned(),
        more => format!("{more} viewers waited for it."),
    };
    let ending = match (&*told.verdict, &told.rung) {
        ("healed", Some(rung)) => format!("Brought back by {rung} in {}.", took(told.duration_ms)),
        ("missing", _) => "Its file is gone: that cannot be healed here.".to_owned(),
        _ => format!("Not brought back, after {}.", took(told.duration_ms)),
    };
    Ok(HealPage {
        here: "/heals",
        row: row(detail.heal),
        link,
        sentence: format!("{ending} {waited}"),
        canvas: told.canvas,
        manifest: told.manifest,
        request: told.request,
        lane: told.lane,
        steps,
    })
}

async fn manifest(
    state: &AdminState,
    id: i64,
    query: &ApiParameters<'_>,
) -> Result<ManifestPage, ApiProblem> {
    let manifest = state.index.manifest_row(id)?.ok_or_else(|| ApiProblem::not_found("no such manifest"))?;
    let after = query.number("after")?.unwrap_or(0);
    let page = queries::canvases(state, id, query)?;
    let cards =
        health::check_canvases(state, page.items).await.into_iter().flat_map(|canvas| cards(state, canvas));
    let cards = cards.collect();
    let public = state.healer.public_url(&manifest.uri);
    let viewer = public.as_ref().zip(state.settings.admin.viewer.as_ref());
    Ok(ManifestPage {
        here: "/collections",
        has_cache: state.settings.cache.memory > 0,
        name: manifest.label.unwrap_or_else(|| manifest.uri.clone()),
        uri: manifest.uri,
        images: counted(manifest.images, "image"),
        viewer: viewer.map(|(manifest, viewer)| viewer.open(manifest)),
        public,
        cards,
        back: if after > 0 {
            format!("/collections/{id}?after={after}")
        } else {
            format!("/collections/{id}")
        },
        next: page.next.map(|after| format!("/collections/{id}?after={after}")),
    })
}

fn cards(state: &AdminState, canvas: CanvasHealth) -> Vec<ImageCard> {
    let public = |key: &str| {
        let image = state.healer.image_by_key(key, None)?;
        state.healer.picture_url(&state.healer.with_owners(&image))
    };
    let label = canvas.row.label.unwrap_or(canvas.row.canvas);
    let states = canvas.states.into_iter().map(|seen| {
        let key = percent_encoding::utf8_percent_encode(&seen.identifier, percent_encoding::NON_ALPHANUMERIC);
        ImageCard {
            picture: format!("/api/v1/images/{key}/thumbnail"),
            public: public(&seen.identifier),
            label: label.clone(),
            state: seen.state.as_str(),
            has_picture: matches!(seen.state, ImageState::Ok | ImageState::Healed | ImageState::Poisoned),
            key: seen.identifier,
        }
    });
    states.collect()
}

fn search(state: &AdminState, words: &str) -> Result<SearchPage, ApiProblem> {
    let mut page = SearchPage {
        here: "",
        words: words.to_owned(),
        key: None,
        owners: Vec::new(),
        pages: Vec::new(),
        is_complete: true,
        is_missing: false,
        manifests: Vec::new(),
    };
    if words.is_empty() {
        return Ok(page);
    }
    let found = queries::images(state, words, 50)?;
    let mut labels = BookLabels::of(&state.index);
    for owner in found.owners {
        let link = labels.link(&owner.manifest, &owner.canvas)?;
        page.owners.push(OwnerView {
            link: link.unwrap_or_else(|| "/collections".to_owned()),
            label: owner.label.unwrap_or_else(|| "Canvas".to_owned()),
            about: owner.canvas,
        });
    }
    for canvas in found.canvases {
        let book = state.index.manifest_row(canvas.manifest)?;
        page.pages.push(OwnerView {
            link: format!("/collections/{}?after={}", canvas.manifest, canvas.id - 1),
            label: canvas.label.unwrap_or_else(|| "Canvas".to_owned()),
            about: book.map_or(canvas.canvas, |book| book.label.unwrap_or(book.uri)),
        });
    }
    page.is_complete = found.is_complete;
    if let Some(key) = &found.identifier {
        let last = state.index.last_heal(key)?;
        page.is_missing = last.is_some_and(|last| last.heal.verdict == "missing");
    }
    page.key = found.identifier;
    page.manifests = found.manifests.into_iter().map(manifest_view).collect();
    Ok(page)
}

async fn check(state: &AdminState) -> Result<SetupPage, ApiProblem> {
    let findings = setup::check(&state.healer, &state.index, &state.settings).await;
    let findings =
        findings.ok_or_else(|| ApiProblem::internal("the setup cannot be checked: the log says why"))?;
    state.setup.update(&findings, &state.metrics);
    Ok(SetupPage { here: "/setup", findings, is_sweeping: state.healer.is_sweeping() })
}
