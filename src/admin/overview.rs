//! The dashboard's overview page.

use std::time::Duration;

use askama::Template;

use super::chart::{self, Chart};
use super::format::{HealRow, row, time_of};
use super::labels::BookLabels;
use super::{AdminState, queries};
use crate::index::history::{HistoryFilter, HistoryPage};
use crate::observe::{Snapshot, counted, grouped};
use crate::setup::SetupFinding;
use crate::upstream::ServerState;

/// The figure that leads to the broken images.
pub(super) const BROKEN: &str = "Broken now";

/// Heals that the overview shows.
const LAST: u32 = 8;

#[derive(Template)]
#[template(path = "now.html")]
pub(super) struct OverviewPage {
    pub(super) here: &'static str,
    pub(super) live: OverviewLive,
    pub(super) has_cache: bool,
}

/// Parts of the overview that a live page renews.
#[derive(Template)]
#[template(path = "now_live.html")]
pub(super) struct OverviewLive {
    pub(super) setup: Vec<SetupFinding>,
    pub(super) tone: &'static str,
    pub(super) summary: String,
    pub(super) breakers: Vec<BreakerView>,
    pub(super) figures: Vec<StatTile>,
    pub(super) chart: Chart,
    pub(super) heals: Vec<HealRow>,
    pub(super) servers: Vec<ServerState>,
    pub(super) canvas_services: Vec<queries::CanvasServiceView>,
}

/// A canvas service that is left alone.
pub(super) struct BreakerView {
    pub(super) upstream: String,
    pub(super) error: Option<String>,
    pub(super) since: (String, String),
    pub(super) next_try: String,
}

pub(super) struct StatTile {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) note: String,
}

pub(super) fn now(state: &AdminState) -> OverviewLive {
    let snapshot = state.metrics.snapshot();
    let (tone, summary) = summary(state, &snapshot);
    let last = state.index.history(&HistoryFilter::default(), HistoryPage { before: None, limit: LAST });
    // A failing index is reported above; heals without labels are left out.
    let mut labels = BookLabels::of(&state.index);
    let last = last.unwrap_or_default().into_iter().filter_map(|entry| labels.heal(entry).ok());
    let canvas_services = queries::canvas_services(state);
    let failing = canvas_services.iter().filter(|service| service.breaker != "closed");
    let breakers = failing.map(|service| BreakerView {
        upstream: service.upstream.clone(),
        error: service.last_error.clone(),
        since: time_of(service.failing_since.unwrap_or(0)),
        next_try: time_of(service.next_try.unwrap_or(0)).0,
    });
    OverviewLive {
        setup: state.setup.problems(),
        tone,
        summary,
        breakers: breakers.collect(),
        figures: figures(&snapshot, state.settings.cache.memory > 0),
        chart: chart::draw(&snapshot.points),
        heals: last.map(row).collect(),
        servers: queries::servers(state),
        canvas_services,
    }
}

/// Figures since the start of the program, and of now.
fn figures(snapshot: &Snapshot, has_cache: bool) -> Vec<StatTile> {
    let count = |outcome: &str| snapshot.requests.get(outcome).copied().unwrap_or(0);
    let healed = count("healed");
    let broken: u64 = ["missing", "cooling", "pending", "failed"].map(count).iter().sum();
    let all: u64 = snapshot.requests.values().sum();
    let figure = |name, value: u64, note: String| StatTile { name, value: grouped(value), note };
    let gauge = |value: i64| u64::try_from(value).unwrap_or(0);
    let up = humantime::format_duration(Duration::from_secs(snapshot.uptime_seconds / 60 * 60)).to_string();
    let up = if up == "0s" { "less than a minute".to_owned() } else { up };
    let mut figures = vec![
        figure("Requests", all, format!("in {up}")),
        figure("Healed", healed, counted(snapshot.canvas_requests, "canvas request")),
        figure(
            BROKEN,
            gauge(snapshot.now.broken_images),
            format!("{} not healed", counted(broken, "request")),
        ),
        figure(
            "Viewers waiting",
            gauge(snapshot.now.waiting),
            format!("{} under way", counted(gauge(snapshot.now.flights), "heal")),
        ),
        figure(
            "Images known",
            gauge(snapshot.now.index_images),
            format!("in {}", counted(gauge(snapshot.now.index_manifests), "manifest")),
        ),
        figure(
            "Connections",
            gauge(snapshot.now.connections),
            format!("{} with an upstream", snapshot.now.upstream_in_flight),
        ),
    ];
    if has_cache {
        let from_memory = snapshot.cache.hits + snapshot.cache.stale;
        let share = from_memory.checked_mul(100).and_then(|hits| hits.checked_div(snapshot.cache.requests));
        let kept = bytesize::ByteSize(snapshot.cache.bytes).display().iec_short();
        let note = format!("{} % of what may be kept, {kept} in memory", share.unwrap_or_default());
        figures.push(figure("From the cache", from_memory, note));
    }
    figures
}

/// State of the proxy in one sentence, with its tone.
fn summary(state: &AdminState, snapshot: &Snapshot) -> (&'static str, String) {
    if let Some((part, fault)) = snapshot.degraded.first_key_value() {
        let more = snapshot.degraded.len() - 1;
        let more = if more > 0 {
            format!(" ({more} more parts are out of order, see the log.)")
        } else {
            String::new()
        };
        ("bad", format!("Out of order: {part}. {}.{more}", fault.why.trim_end_matches('.')))
    } else if snapshot.now.breakers_open > 0 {
        (
            "bad",
            "A canvas service only fails and is left alone for a while: nothing can be healed through it."
                .to_owned(),
        )
    } else if state.healer.is_sweeping() {
        ("busy", "A sweep is under way: the whole index is looked at, and what is gone is healed.".to_owned())
    } else if !state.settings.cluster.urls.is_empty() && snapshot.now.cluster_connected == 0 {
        ("bad", "Redis does not answer: this node heals alone until it does.".to_owned())
    } else if snapshot.now.flights > 0 {
        (
            "busy",
            format!(
                "{} under way, {} waiting.",
                counted(snapshot.now.flights, "heal"),
                counted(snapshot.now.waiting.max(0), "viewer")
            ),
        )
    } else if snapshot.now.broken_images > 0 {
        let broken = match snapshot.now.broken_images {
            1 => "one image that readers asked for is".to_owned(),
            more => format!("{more} images that readers asked for are"),
        };
        ("bad", format!("Nothing is being healed, and {broken} still broken."))
    } else if state.setup.problems().iter().any(SetupFinding::is_bad) {
        ("bad", "All is quiet, but the setup is not right: images that expire may stay gone.".to_owned())
    } else {
        ("good", "All is quiet: nothing is being healed, nobody waits.".to_owned())
    }
}
