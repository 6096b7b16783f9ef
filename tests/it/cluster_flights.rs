//! Several nodes, one heal: against a real Redis.

use std::time::Duration;

use crate::support::cluster_world::{Fleet, PATIENT, Server, TILE, all_served, book};
use crate::support::world::patiently;

async fn fleet(pages: u32, redis: &Server, more: &str) -> Fleet {
    let url = format!("cluster.url = {}", redis.url());
    let fleet = Fleet::start(book(pages).await, 3, &url, &format!("{PATIENT}\n{more}")).await;
    fleet.are_joined(true).await;
    fleet
}

#[tokio::test]
async fn three_nodes_and_three_hundred_viewers_of_one_expired_canvas_cost_one_canvas_request() {
    let redis = Server::redis(&[]).await;
    let fleet = fleet(1, &redis, "").await;
    let page = fleet.bed.page();
    fleet.bed.service.stalls_canvas();
    let viewers = fleet.storm(&vec![page; 300]);
    fleet.bed.ledger.until(|counts| counts.canvas == 1).await;
    patiently("all wait", || {
        (0..3).map(|node| fleet.metric(node, "iiif_mender_waiting_viewers")).sum::<f64>() >= 300.0
    })
    .await;
    fleet.bed.service.releases();
    all_served(viewers).await;
    fleet.settles().await;
    assert_eq!(fleet.bed.counts().canvas, 1);
}

#[tokio::test]
async fn without_resources_it_is_one_request_too_also_for_those_who_come_just_after() {
    let redis = Server::redis(&[]).await;
    let fleet = fleet(1, &redis, "").await;
    fleet.bed.service.closes_resources();
    let page = fleet.bed.page();
    all_served(fleet.storm(&vec![page; 30])).await;
    fleet.settles().await;
    assert_eq!(fleet.bed.counts().canvas, 1);
}

#[tokio::test]
async fn the_viewers_of_other_nodes_are_let_go_as_early_as_those_of_the_node_that_asks() {
    let redis = Server::redis(&[]).await;
    let fleet = fleet(1, &redis, "").await;
    fleet.bed.service.stalls_after_key();
    all_served(fleet.storm(&vec![fleet.bed.page(); 9])).await;
    assert_eq!(
        fleet
            .metric(0, "iiif_mender_canvas_in_flight")
            .max(fleet.metric(1, "iiif_mender_canvas_in_flight"))
            .max(fleet.metric(2, "iiif_mender_canvas_in_flight")),
        1.0,
        "it runs on"
    );
    fleet.bed.service.releases();
    fleet.settles().await;
    assert_eq!(fleet.bed.counts().canvas, 1);
}

#[tokio::test]
async fn fifty_canvases_that_expired_at_once_are_asked_for_once_each_and_two_at_a_time() {
    // The full figure: IIIF_MENDER_STORM=2000, on a machine that has nothing else to do.
    let canvases = std::env::var("IIIF_MENDER_STORM").map_or(50, |count| count.parse().expect("a number"));
    let redis = Server::redis(&[]).await;
    let patient = "heal.wait = 100s\nheal.max_waiting = 100000\nheal.per_client = 100000";
    let fleet = fleet(canvases, &redis, patient).await;
    let pages = fleet.bed.pages();
    // Each page at every node.
    let everywhere: Vec<_> =
        pages.iter().flat_map(|page| [page.clone(), page.clone(), page.clone()]).collect();
    // One machine has not the sockets for 6,000 viewers and all that they wait for.
    for some in everywhere.chunks(900) {
        all_served(fleet.storm(some)).await;
    }
    fleet.settles().await;
    let counts = fleet.bed.counts();
    assert_eq!(counts.canvas, usize::try_from(canvases).expect("a count"));
    assert!(counts.canvas_most <= 2, "{}", counts.canvas_most);
}

#[tokio::test]
async fn what_did_not_help_on_one_node_is_not_tried_on_another() {
    let redis = Server::redis(&[]).await;
    let fleet = fleet(1, &redis, "heal.cooldown = 10m").await;
    let page = fleet.bed.page();
    fleet.bed.service.fails_canvas(500);
    let first = fleet.asks(0, &page.image_path(TILE)).await.expect("an answer");
    assert_eq!(first.status, 404);
    fleet.settles().await;
    let asked = fleet.bed.counts().canvas;
    for node in [1, 2] {
        assert_eq!(fleet.asks(node, &page.image_path(TILE)).await.expect("an answer").status, 404);
    }
    fleet.settles().await;
    assert_eq!(fleet.bed.counts().canvas, asked, "they leave it alone, too");
}

#[tokio::test]
async fn a_mass_expiry_is_not_heard_of_again_when_the_configuration_is_read_anew() {
    let redis = Server::redis(&[]).await;
    let more = "heal.mass_expiry.ids = 2";
    let mut fleet = fleet(2, &redis, more).await;
    all_served(
        fleet.bed.pages().iter().map(|page| (page.clone(), fleet.asks(0, &page.image_path(TILE)))).collect(),
    )
    .await;
    patiently("all have heard", || (0..3).all(|node| fleet.event(node, "mass_expiry") == 1.0)).await;
    let node = &mut fleet.nodes[1];
    let mut settings = (*node.app.settings()).clone();
    settings.heal.wait += Duration::from_secs(1);
    let changes = node.app.apply(settings).expect("it is in order");
    assert_eq!(changes.keys, ["heal.wait"]);
    // It listens again from here on; by the end of a request it would have heard.
    all_served(vec![(fleet.bed.page(), fleet.asks(1, &fleet.bed.page().image_path(TILE)))]).await;
    assert_eq!(fleet.event(1, "mass_expiry"), 1.0);
}

#[tokio::test]
async fn what_an_operator_has_forgotten_is_forgotten_in_redis_too() {
    let redis = Server::redis(&[]).await;
    let fleet = fleet(2, &redis, "heal.cooldown = 10m").await;
    let pages = fleet.bed.pages();
    let (failed, gone) = (&pages[0], &pages[1]);
    fleet.bed.service.fails_canvas(500);
    assert_eq!(fleet.asks(0, &failed.image_path(TILE)).await.expect("an answer").status, 404);
    fleet.settles().await;
    fleet.bed.service.recovers();
    fleet.bed.fedora.removes_file(&gone.path);
    let missing = fleet.asks(0, &gone.image_path(TILE)).await.expect("an answer");
    assert_eq!((missing.status, missing.header("heal-status")), (404, "missing"));
    fleet.bed.fedora.restores_file(&gone.path);
    fleet.bed.expires_everything();
    for page in [failed, gone] {
        let admin = fleet.nodes[0].app.admin.expect("operators are served");
        let url = format!("http://{admin}/api/v1/forget");
        let body = serde_json::json!({ "identifier": page.identifier }).to_string();
        let fields = [("content-type", "application/json")];
        let told = fleet.client.send_body(http::Method::POST, &url, &fields, body.into()).await;
        assert_eq!(told.expect("an answer").status, 200);
        let answer = fleet.asks(0, &page.image_path(TILE)).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}: {:?}", page.path, answer.headers);
    }
}

#[tokio::test]
async fn a_breaker_that_one_node_opened_is_open_on_every_node() {
    let redis = Server::redis(&[]).await;
    let fleet =
        fleet(8, &redis, "heal.breaker_failures = 2\nheal.breaker_open = 10m\nheal.concurrency = 1").await;
    let pages = fleet.bed.pages();
    fleet.bed.service.fails_canvas(503);
    for page in &pages[..3] {
        assert_eq!(fleet.asks(0, &page.image_path(TILE)).await.expect("an answer").status, 404);
    }
    fleet.settles().await;
    let asked = fleet.bed.counts().canvas;
    assert_eq!(fleet.asks(1, &pages[5].image_path(TILE)).await.expect("an answer").status, 404);
    assert_eq!(fleet.bed.counts().canvas, asked, "the other node does not ask");
}

#[tokio::test]
async fn a_healthy_image_costs_redis_nothing() {
    let redis = Server::redis(&[]).await;
    let fleet = fleet(3, &redis, "").await;
    let pages = fleet.bed.pages();
    all_served(fleet.storm(&pages)).await;
    fleet.settles().await;
    // What goes on behind: leases and places are given back.
    let mut before = redis.commands().await;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = redis.commands().await;
        let own =
            |name: &str| matches!(name, "info" | "hello" | "client|setinfo" | "client" | "ping" | "command");
        let of = |all: &[(String, u64)]| -> Vec<_> {
            all.iter().filter(|(name, _)| !own(name)).cloned().collect()
        };
        if of(&before) == of(&now) {
            break;
        }
        before = now;
    }
    let own = |name: &str| name == "info" || name.starts_with("client") || name == "hello";
    let served: Vec<_> = (0..100).flat_map(|_| fleet.storm(&pages)).collect();
    all_served(served).await;
    let after = redis.commands().await;
    let of =
        |all: &[(String, u64)]| -> Vec<_> { all.iter().filter(|(name, _)| !own(name)).cloned().collect() };
    assert_eq!(of(&before), of(&after), "300 healthy requests");
}

#[tokio::test]
async fn a_file_that_one_node_found_missing_is_missing_on_every_node() {
    let redis = Server::redis(&[]).await;
    let fleet = fleet(1, &redis, "").await;
    let page = fleet.bed.page();
    fleet.bed.registers_everything();
    fleet.bed.fedora.removes_file(&page.path);
    assert_eq!(fleet.asks(0, &page.image_path(TILE)).await.expect("an answer").status, 404);
    fleet.settles().await;
    let asked = |fleet: &Fleet| {
        let counts = fleet.bed.counts();
        (counts.canvas, counts.resources)
    };
    let before = asked(&fleet);
    let second = fleet.asks(1, &page.image_path(TILE)).await.expect("an answer");
    assert_eq!(second.status, 404);
    fleet.settles().await;
    assert_eq!(asked(&fleet), before, "the service is not even asked whether it is alive");
}
