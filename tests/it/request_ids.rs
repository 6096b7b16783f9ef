//! One id follows a request: into its answer, to the servers behind us, into the history.

use iiif_mender::index::history::{HistoryEntry, HistoryFilter, HistoryPage};
use testbed::{Kind, Logged, Origin};

use crate::support::edge::{Edge, route};
use crate::support::world::{World, patiently};

const TILE: &str = "0,0,512,512/512,/0/default.jpg";

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Visits only, nothing for pages that nobody asked for; the test is a proxy that is believed.
const TRUSTING: &str = "heal.ladder = visit\nheal.ahead = 0\nserver.trusted_proxies = 127.0.0.1";

fn told<'a>(logged: &'a Logged, name: &str) -> &'a str {
    logged.headers.get(name).map_or("", |value| value.to_str().expect("text"))
}

async fn history(world: &World, heals: usize) -> Vec<HistoryEntry> {
    let read =
        || world.app.index.history(&HistoryFilter::default(), HistoryPage::default()).expect("an index");
    patiently("the heals are written down", || read().len() >= heals).await;
    read()
}

#[tokio::test]
async fn every_answer_has_an_id_and_the_upstream_saw_the_same() {
    let origin = Origin::fixed(200, "fine");
    let edge = Edge::with(&origin.url(), "").await;
    let (one, two) = (edge.get("/a").await, edge.get("/b").await);
    let ids = [one.header("x-request-id"), two.header("x-request-id")];
    assert!(
        ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())),
        "{ids:?}"
    );
    assert_ne!(ids[0], ids[1]);
    let seen = origin.seen();
    assert_eq!([seen[0].header("x-request-id"), seen[1].header("x-request-id")], ids);
    assert_eq!(seen[0].header("traceparent"), "", "no trace is begun that nobody will see");
}

#[tokio::test]
async fn a_trusted_proxys_id_and_trace_go_on_and_a_strangers_do_not() {
    let origin = Origin::fixed(200, "fine");
    let fields =
        [("x-request-id", "front-7/a=1"), ("traceparent", PARENT), ("tracestate", "front=1,other=2")];
    let trusting = Edge::with(&origin.url(), "server.trusted_proxies = 127.0.0.1").await;
    assert_eq!(trusting.get_with("/", &fields).await.header("x-request-id"), "front-7/a=1");
    for (name, value) in fields {
        assert_eq!(origin.seen()[0].header(name), value);
    }
    let wary = Edge::with(&origin.url(), "").await;
    let id = wary.get_with("/", &fields).await.header("x-request-id").to_owned();
    assert_eq!(id.len(), 32);
    let seen = origin.seen();
    assert_eq!([seen[1].header("x-request-id"), seen[1].header("traceparent")], [id.as_str(), ""]);
    assert_eq!(seen[1].header("tracestate"), "");
    let bad = [("x-request-id", "two words"), ("traceparent", "00-nonsense"), ("tracestate", "a=1")];
    assert_eq!(trusting.get_with("/", &bad).await.header("x-request-id").len(), 32);
    let seen = origin.seen();
    assert_eq!([seen[2].header("traceparent"), seen[2].header("tracestate")], ["", ""]);
}

#[tokio::test]
async fn an_upstreams_own_id_does_not_hide_ours() {
    let origin =
        Origin::start(|_| Origin::answer(200, &[("x-request-id", "theirs")], testbed::Flow::sized("x")));
    let edge = Edge::with(&origin.url(), "").await;
    assert_eq!(edge.get("/").await.header("x-request-id"), origin.seen()[0].header("x-request-id"));
}

#[tokio::test]
async fn a_refusal_names_its_request_in_field_and_problem() {
    let origin = Origin::fixed(200, "");
    origin.goes_down().await;
    let edge = Edge::with(&origin.url(), "").await;
    let refused = edge.get_with("/a%20b?token=x", &[("accept", "application/json")]).await;
    let (id, problem) = (refused.header("x-request-id"), refused.json());
    assert_eq!(id.len(), 32);
    assert_eq!(problem["request"], id);
    assert_eq!(problem["instance"], format!("/a%20b#{id}"));
}

#[tokio::test]
async fn a_heal_carries_the_id_of_its_request_to_the_service_and_into_the_history() {
    let world = World::with(TRUSTING).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    let fields = [("x-request-id", "reader-1"), ("traceparent", PARENT)];
    let tile = world.get_with(&page.image_path(TILE), &fields).await;
    assert_eq!((tile.status, tile.header("x-request-id")), (200, "reader-1"));
    world.settles().await;
    let log = world.bed.service.ledger().log();
    let asked: Vec<_> = log.iter().filter(|it| matches!(it.kind, Kind::Visit | Kind::Resources)).collect();
    assert!(asked.iter().any(|it| it.kind == Kind::Visit) && asked.len() > 1);
    for asked in asked {
        assert_eq!(
            (told(asked, "x-request-id"), told(asked, "traceparent")),
            ("reader-1", PARENT),
            "{asked:?}"
        );
    }
    let heals = history(&world, 1).await;
    assert_eq!(heals[0].heal.request.as_deref(), Some("reader-1"));
}

#[tokio::test]
async fn of_many_who_wait_for_one_heal_the_first_stands_in_the_history() {
    let world = World::with(TRUSTING).await;
    let path = world.bed.page().image_path(TILE);
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let leader = world.get_with(&path, &[("x-request-id", "leader")]);
    let followers = async {
        patiently("the heal is on its way", || world.metric("iiif_mender_waiting_viewers") == 1.0).await;
        let (one, two) = ([("x-request-id", "second")], [("x-request-id", "third")]);
        let asked = futures_util::future::join(world.get_with(&path, &one), world.get_with(&path, &two));
        let all_wait = async {
            patiently("all wait", || world.metric("iiif_mender_waiting_viewers") == 3.0).await;
            world.bed.service.releases();
        };
        futures_util::future::join(asked, all_wait).await.0
    };
    let (leader, (second, third)) = futures_util::future::join(leader, followers).await;
    let ids = [&leader, &second, &third].map(|answer| answer.header("x-request-id").to_owned());
    assert_eq!(ids, ["leader", "second", "third"], "each keeps its own");
    let heals = history(&world, 1).await;
    assert_eq!((heals.len(), heals[0].heal.waiting), (1, 3));
    assert_eq!(heals[0].heal.request.as_deref(), Some("leader"));
}

#[tokio::test]
async fn pages_healed_ahead_carry_the_id_of_the_reader_who_came_before() {
    let bed = testbed::Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await;
    let world = World::over(bed, "heal.ladder = visit\nserver.trusted_proxies = 127.0.0.1").await;
    let page = world.bed.pages().remove(0);
    world.bed.expires_everything();
    let tile =
        world.get_with(&page.image_path("full/32,/0/default.jpg"), &[("x-request-id", "reader-2")]).await;
    assert_eq!(tile.status, 200);
    let heals = history(&world, 3).await;
    assert!(heals.iter().all(|entry| entry.heal.request.as_deref() == Some("reader-2")), "{heals:?}");
}

#[tokio::test]
async fn no_error_of_ours_is_kept_by_a_cache_or_hidden_from_a_script_and_each_has_an_id() {
    let (dead, stuck) = (Origin::fixed(200, ""), Origin::fixed(200, ""));
    dead.goes_down().await;
    stuck.stalls();
    let routes = [
        route("/dead/", &format!("{}/", dead.url()), "plain", ""),
        route("/stuck/", &format!("{}/", stuck.url()), "plain", ""),
    ];
    let more = "upstream.first_byte_timeout = 1s\nupstream.max_requests = 1\nupstream.queue_wait = 100ms";
    let edge = Edge::routed(&routes.concat(), more).await;
    // Of two that are stuck one gets no place.
    let (one, other) = tokio::join!(edge.get("/stuck/a"), edge.get("/stuck/b"));
    let (late, busy) = if one.status == 504 { (one, other) } else { (other, one) };
    let answers = [
        (400, edge.get("/dead/a%2F../b").await),
        (404, edge.get("/nowhere").await),
        (502, edge.get("/dead/a").await),
        (503, busy),
        (504, late),
    ];
    for (status, answer) in answers {
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("cache-control"), "no-store", "{status}");
        let origins: Vec<_> = answer.headers.get_all("access-control-allow-origin").iter().collect();
        assert_eq!(origins, ["*"], "{status}");
        assert_eq!(answer.header("x-request-id").len(), 32, "{status}");
        assert_eq!(answer.header("retry-after"), if status == 503 { "1" } else { "" });
    }
}
