//! The dashboard's overview page.

use std::time::Duration;

use askama::Template;

use super::chart::{self, Chart};
use super::format::{HealRow, grouped, row};
use super::{AdminState, queries};
use crate::index::history::{HistoryFilter, HistoryPage};
use crate::observe::Snapshot;

/// Heals that the overview shows.
const LAST: u32 = 8;

#[derive(Template)]
#[template(path = "now.html")]
pub(super) struct OverviewPage {
    pub(super) here: &'static str,
    pub(super) live: OverviewLive,
    pub(super) has_cache: bool,
}

/// What is renewed as it changes.
#[derive(Template)]
#[template(path = "now_live.html")]
pub(super) struct OverviewLive {
    pub(super) tone: &'static str,
    pub(super) summary: String,
    pub(super) figures: Vec<StatTile>,
    pub(super) chart: Chart,
    pub(super) heals: Vec<HealRow>,
    pub(super) servers: Vec<queries::ServerView>,
    pub(super) canvas_services: Vec<queries::CanvasServiceView>,
}

pub(super) struct StatTile {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) note: String,
}

pub(super) fn now(rooms: &AdminState) -> OverviewLive {
    let told = rooms.metrics.snapshot();
    let count = |outcome: &str| told.requests.get(outcome).copied().unwrap_or(0);
    let healed = count("healed");
    let broken: u64 = ["missing", "cooling", "pending", "failed"].map(count).iter().sum();
    let all: u64 = told.requests.values().sum();
    let (tone, summary) = summary(rooms, &told);
    let figure = |name, value: u64, note: String| StatTile { name, value: grouped(value), note };
    let gauge = |value: i64| u64::try_from(value).unwrap_or(0);
    let up = humantime::format_duration(Duration::from_secs(told.uptime_seconds / 60 * 60)).to_string();
    let up = if up == "0s" { "less than a minute".to_owned() } else { up };
    let mut figures = vec![
        figure("Requests", all, format!("in {up}")),
        figure("Healed", healed, format!("{} canvas requests", grouped(told.canvas_requests))),
        figure("Not healed", broken, format!("{} of them missing", grouped(count("missing")))),
        figure("Viewers waiting", gauge(told.now.waiting), format!("{} heals under way", told.now.flights)),
        figure(
            "Images known",
            gauge(told.now.index_images),
            format!("in {} manifests", grouped(gauge(told.now.index_manifests))),
        ),
        figure(
            "Connections",
            gauge(told.now.connections),
            format!("{} with an upstream", told.now.upstream_in_flight),
        ),
    ];
    if rooms.settings.cache.memory > 0 {
        let from_memory = told.cache.hits + told.cache.stale;
        let share = from_memory.checked_mul(100).and_then(|hits| hits.checked_div(told.cache.requests));
        let kept = bytesize::ByteSize(told.cache.bytes).display().iec_short();
        let note = format!("{} % of what may be kept, {kept} in memory", share.unwrap_or_default());
        figures.push(figure("From the cache", from_memory, note));
    }
    let last = rooms.index.history(&HistoryFilter::default(), HistoryPage { before: None, limit: LAST });
    // An index that cannot be read is told above; the rest of the page can be told.
    let last = last.unwrap_or_default();
    OverviewLive {
        tone,
        summary,
        figures,
        chart: chart::draw(&told.points),
        heals: last.into_iter().map(row).collect(),
        servers: queries::servers(rooms),
        canvas_services: queries::canvas_services(rooms),
    }
}

/// How it is, in a sentence.
fn summary(rooms: &AdminState, told: &Snapshot) -> (&'static str, String) {
    if let Some((part, fault)) = told.degraded.first_key_value() {
        let more = told.degraded.len() - 1;
        let more = if more > 0 {
            format!(" ({more} more parts are out of order, see the log.)")
        } else {
            String::new()
        };
        ("bad", format!("Out of order: {part}. {}.{more}", fault.why.trim_end_matches('.')))
    } else if told.now.breakers_open > 0 {
        (
            "bad",
            "A canvas service only fails and is left alone for a while: nothing can be healed through it."
                .to_owned(),
        )
    } else if rooms.healer.is_sweeping() {
        ("busy", "A sweep is under way: the whole index is looked at, and what is gone is healed.".to_owned())
    } else if !rooms.settings.cluster.urls.is_empty() && told.now.cluster_connected == 0 {
        ("bad", "Redis does not answer: this node heals alone until it does.".to_owned())
    } else if told.now.flights > 0 {
        (
            "busy",
            format!("{} heals are under way, {} viewers wait for them.", told.now.flights, told.now.waiting),
        )
    } else {
        ("good", "All is quiet: nothing is being healed, nobody waits.".to_owned())
    }
}
