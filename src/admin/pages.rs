//! The dashboard: what the API tells, for eyes. Everything is made here; the script only renews it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use askama::Template;
use http::Response;

use super::answer::{Problem, typed};
use super::chart::{self, Chart};
use super::health::{self, Sheet, State};
use super::read::{self, Query, Told};
use super::route::Page;
use super::{Admin, Rooms};
use crate::batch::setup::{self, Unmapped};
use crate::index::history::{Entry, Filter, Page as Piece};
use crate::upstream::Body;

/// The pages, in the order of the navigation.
pub(super) const NAV: [(&str, &str); 4] =
    [("/", "Now"), ("/collections", "Collections"), ("/heals", "Heals"), ("/setup", "Setup check")];

const HTML: &str = "text/html; charset=utf-8";

/// Heals that Now shows.
const LAST: u32 = 8;

/// Canvases whose routes the setup check looks at.
const SAMPLE: u32 = 200;

#[derive(Template)]
#[template(path = "now.html")]
struct NowPage {
    here: &'static str,
    tone: &'static str,
    summary: String,
    figures: Vec<Figure>,
    chart: Chart,
    heals: Vec<Row>,
    servers: Vec<read::Server>,
}

#[derive(Template)]
#[template(path = "now_live.html")]
struct NowLive {
    tone: &'static str,
    summary: String,
    figures: Vec<Figure>,
    chart: Chart,
    heals: Vec<Row>,
    servers: Vec<read::Server>,
}

struct Figure {
    name: &'static str,
    value: String,
    note: String,
}

/// One heal in a table.
struct Row {
    id: i64,
    iso: String,
    ago: String,
    verdict: String,
    rung: String,
    took: String,
    waiting: u32,
    identifier: String,
}

#[derive(Template)]
#[template(path = "heals.html")]
struct HealsPage {
    here: &'static str,
    heals: Vec<Row>,
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
    row: Row,
    sentence: String,
    canvas: Option<String>,
    manifest: Option<String>,
    request: Option<String>,
    lane: String,
    steps: Vec<Shown>,
}

struct Shown {
    rung: &'static str,
    answer: &'static str,
    took: String,
    share: u64,
}

#[derive(Template)]
#[template(path = "collections.html")]
struct CollectionsPage {
    here: &'static str,
    volumes: Vec<Shelf>,
    total: String,
    is_first: bool,
    next: Option<String>,
}

struct Shelf {
    id: i64,
    name: String,
    images: u64,
    vanished: bool,
    healed: u64,
    failed: u64,
    missing: u64,
}

#[derive(Template)]
#[template(path = "manifest.html")]
struct ManifestPage {
    here: &'static str,
    name: String,
    uri: String,
    images: u64,
    cards: Vec<Card>,
    back: String,
    next: Option<String>,
}

struct Card {
    key: String,
    label: String,
    state: &'static str,
    picture: String,
    has_picture: bool,
}

#[derive(Template)]
#[template(path = "search.html")]
struct SearchPage {
    here: &'static str,
    words: String,
    key: Option<String>,
    owners: Vec<Owned>,
    volumes: Vec<Shelf>,
}

struct Owned {
    link: String,
    label: String,
    canvas: String,
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage {
    here: &'static str,
    findings: Vec<Finding>,
}

struct Finding {
    class: &'static str,
    word: &'static str,
    about: &'static str,
    text: String,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    here: &'static str,
    status: String,
    detail: String,
}

fn html(page: &impl Template) -> Result<Response<Body>, Problem> {
    let text = page.render().map_err(|error| Problem::internal(&error.to_string()))?;
    Ok(typed(HTML, text))
}

/// A problem for eyes.
pub(super) fn problem(problem: &Problem) -> Option<Response<Body>> {
    let page =
        ProblemPage { here: "", status: problem.status().to_string(), detail: problem.detail().to_owned() };
    html(&page).ok()
}

impl Admin {
    pub(super) async fn page(&self, page: Page, query: &str) -> Result<Response<Body>, Problem> {
        let (rooms, words) = (&*self.rooms, query);
        let query = Query::read(query);
        match page {
            Page::Now => {
                let NowLive { tone, summary, figures, chart, heals, servers } = now(rooms)?;
                html(&NowPage { here: "/", tone, summary, figures, chart, heals, servers })
            }
            Page::NowLive => html(&now(rooms)?),
            Page::Heals => html(&heals(rooms, &query, words)?),
            Page::Heal(id) => html(&heal(rooms, id)?),
            Page::Collections => html(&collections(rooms, &query)?),
            Page::Manifest(id) => html(&manifest(rooms, id, &query).await?),
            Page::Search => html(&search(rooms, &query.text("q").unwrap_or_default())?),
            Page::Setup => html(&check(rooms).await?),
        }
    }
}

fn now(rooms: &Rooms) -> Result<NowLive, Problem> {
    let seen = rooms.metrics.snapshot();
    let count = |outcome: &str| seen.requests.get(outcome).copied().unwrap_or(0);
    let healed = count("healed");
    let lost: u64 = ["missing", "cooling", "pending", "failed"].map(count).iter().sum();
    let all: u64 = seen.requests.values().sum();
    let (tone, summary) = if seen.now.breakers_open > 0 {
        (
            "bad",
            "A canvas service only fails and is left alone for a while: nothing can be healed through it."
                .to_owned(),
        )
    } else if rooms.healer.is_sweeping() {
        ("busy", "A sweep is under way: the whole index is looked at, and what is gone is healed.".to_owned())
    } else if seen.now.flights > 0 {
        (
            "busy",
            format!("{} heals are under way, {} viewers wait for them.", seen.now.flights, seen.now.waiting),
        )
    } else {
        ("good", "All is quiet: nothing is being healed, nobody waits.".to_owned())
    };
    let figure = |name, value: u64, note: String| Figure { name, value: grouped(value), note };
    let gauge = |value: i64| u64::try_from(value).unwrap_or(0);
    let up = humantime::format_duration(Duration::from_secs(seen.uptime_seconds / 60 * 60)).to_string();
    let up = if up == "0s" { "less than a minute".to_owned() } else { up };
    let figures = vec![
        figure("Requests", all, format!("in {up}")),
        figure("Healed", healed, format!("{} canvas requests", grouped(seen.canvas_requests))),
        figure("Not healed", lost, format!("{} of them missing", grouped(count("missing")))),
        figure("Viewers waiting", gauge(seen.now.waiting), format!("{} heals under way", seen.now.flights)),
        figure(
            "Images known",
            gauge(seen.now.index_images),
            format!("in {} manifests", grouped(gauge(seen.now.index_manifests))),
        ),
        figure(
            "Connections",
            gauge(seen.now.connections),
            format!("{} with an upstream", seen.now.upstream_in_flight),
        ),
    ];
    let last = rooms.index.history(&Filter::default(), Piece { before: None, limit: LAST })?;
    Ok(NowLive {
        tone,
        summary,
        figures,
        chart: chart::draw(&seen.points),
        heals: last.into_iter().map(row).collect(),
        servers: read::servers(rooms),
    })
}

fn heals(rooms: &Rooms, query: &Query<'_>, words: &str) -> Result<HealsPage, Problem> {
    let listing = read::heals(rooms, query)?;
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

fn heal(rooms: &Rooms, id: i64) -> Result<HealPage, Problem> {
    let course = read::heal(rooms, id)?;
    let longest = course.steps.iter().map(|step| step.duration_ms).max().unwrap_or(1).max(1);
    let steps = course.steps.iter().map(|step| Shown {
        rung: step.rung,
        answer: step.answer,
        took: took(step.duration_ms),
        share: (step.duration_ms * 100 / longest).max(1),
    });
    let steps = steps.collect();
    let told = course.entry.heal.clone();
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
        row: row(course.entry),
        sentence: format!("{ending} {waited}"),
        canvas: told.canvas,
        manifest: told.manifest,
        request: told.request,
        lane: told.lane,
        steps,
    })
}

fn collections(rooms: &Rooms, query: &Query<'_>) -> Result<CollectionsPage, Problem> {
    let listing = read::manifests(rooms, query)?;
    let total = u64::try_from(rooms.metrics.snapshot().now.index_manifests).unwrap_or(0);
    Ok(CollectionsPage {
        here: "/collections",
        volumes: listing.items.into_iter().map(shelf).collect(),
        total: grouped(total),
        is_first: query.text("after").is_none(),
        next: listing.next.map(|after| format!("/collections?after={after}")),
    })
}

fn shelf(told: Told) -> Shelf {
    let Told { volume, health } = told;
    Shelf {
        id: volume.id,
        name: volume.label.unwrap_or(volume.uri),
        images: volume.images,
        vanished: volume.vanished.is_some(),
        healed: health.healed,
        failed: health.failed,
        missing: health.missing,
    }
}

async fn manifest(rooms: &Rooms, id: i64, query: &Query<'_>) -> Result<ManifestPage, Problem> {
    let volume = rooms.index.volume(id)?.ok_or_else(|| Problem::not_found("no such manifest"))?;
    let after = query.number("after")?.unwrap_or(0);
    let leaves = read::leaves(rooms, id, query)?;
    let cards = health::look(rooms, leaves.items).await.into_iter().flat_map(cards).collect();
    Ok(ManifestPage {
        here: "/collections",
        name: volume.label.unwrap_or_else(|| volume.uri.clone()),
        uri: volume.uri,
        images: volume.images,
        cards,
        back: if after > 0 {
            format!("/collections/{id}?after={after}")
        } else {
            format!("/collections/{id}")
        },
        next: leaves.next.map(|after| format!("/collections/{id}?after={after}")),
    })
}

fn cards(sheet: Sheet) -> Vec<Card> {
    let label = sheet.leaf.label.unwrap_or(sheet.leaf.canvas);
    let states = sheet.states.into_iter().map(|seen| {
        let key = percent_encoding::utf8_percent_encode(&seen.identifier, percent_encoding::NON_ALPHANUMERIC);
        Card {
            picture: format!("/api/v1/images/{key}/thumbnail"),
            label: label.clone(),
            state: seen.state.as_str(),
            has_picture: matches!(seen.state, State::Ok | State::Healed),
            key: seen.identifier,
        }
    });
    states.collect()
}

fn search(rooms: &Rooms, words: &str) -> Result<SearchPage, Problem> {
    let mut page =
        SearchPage { here: "", words: words.to_owned(), key: None, owners: Vec::new(), volumes: Vec::new() };
    if words.is_empty() {
        return Ok(page);
    }
    let found = read::images(rooms, words, 50)?;
    for owner in found.owners {
        let link = rooms.index.volume_of(&owner.manifest)?;
        page.owners.push(Owned {
            link: link.map_or_else(|| "/collections".to_owned(), |id| format!("/collections/{id}")),
            label: owner.label.unwrap_or_else(|| "Canvas".to_owned()),
            canvas: owner.canvas,
        });
    }
    page.key = found.identifier;
    page.volumes = found.manifests.into_iter().map(shelf).collect();
    Ok(page)
}

async fn check(rooms: &Rooms) -> Result<SetupPage, Problem> {
    let leaves = rooms.index.first_leaves(SAMPLE)?;
    let strange: Vec<&str> =
        leaves.iter().map(|leaf| leaf.canvas.as_str()).filter(|url| !rooms.healer.may_ask(url)).collect();
    let unmapped = Unmapped {
        canvases: leaves.len() as u64,
        strange: strange.len() as u64,
        example: strange.first().map(|url| (*url).to_owned()),
    };
    let witness = leaves.iter().flat_map(|leaf| &leaf.images).find_map(|key| rooms.healer.image(key, None));
    let facts = match &witness {
        Some(patient) => Some(rooms.healer.inspect(patient).await),
        None => None,
    };
    let findings = setup::findings(&rooms.settings, facts.as_ref(), &unmapped).into_iter().map(|finding| {
        let (class, word) = match finding.state {
            setup::State::Good => ("good", "good"),
            setup::State::Note => ("note", "to know"),
            setup::State::Bad => ("bad", "wrong"),
        };
        Finding { class, word, about: finding.about, text: finding.text }
    });
    Ok(SetupPage { here: "/setup", findings: findings.collect() })
}

fn row(entry: Entry) -> Row {
    let Entry { id, heal } = entry;
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(heal.at).unwrap_or(0));
    Row {
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

fn took(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1000, ms % 1000 / 100) }
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
fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}
