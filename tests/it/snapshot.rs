//! What the people who run it can see: the scrape, a snapshot, news.

use std::time::Duration;

use iiif_mender::observe::{LiveEvent, SAMPLE_EVERY};
use tokio::sync::broadcast::error::TryRecvError;

use crate::support::world::{World, patiently};

const TILE: &str = "0,0,512,512/512,/0/default.jpg";

const TRUSTING: &str = "heal.ladder = visit\nheal.ahead = 0\nserver.trusted_proxies = 127.0.0.1";

/// A world in which one expired tile was healed for the request "reader-1".
async fn healed() -> World {
    let world = World::with(TRUSTING).await;
    world.bed.expires_everything();
    let path = world.bed.page().image_path(TILE);
    assert_eq!(world.get_with(&path, &[("x-request-id", "reader-1")]).await.status, 200);
    world.settles().await;
    world
}

fn admin(world: &World, path: &str) -> String {
    format!("http://{}{path}", world.app.admin.expect("an admin listener"))
}

#[tokio::test]
async fn prometheus_gets_exemplars_and_others_get_plain_text() {
    let world = healed().await;
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    let open = testbed::get_with(&admin(&world, "/metrics"), &[("accept", accept)]).await;
    assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let page = open.text();
    assert!(page.ends_with("# EOF\n"));
    for name in ["heal_seconds", "wait_seconds", "canvas_request_seconds"] {
        let bucket = format!("iiif_mender_{name}_bucket");
        let mut lines = page.lines().filter(|line| line.starts_with(&bucket));
        assert!(lines.any(|line| line.contains("# {request_id=\"reader-1\"}")), "{name}: {page}");
    }
    let plain = testbed::get(&admin(&world, "/metrics")).await;
    assert_eq!(plain.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let page = plain.text();
    assert!(page.contains("# TYPE iiif_mender_heals_total counter\n"), "{page}");
    assert!(page.contains("# TYPE iiif_mender_build_info gauge\n"), "{page}");
    let odd = ["# UNIT", "# EOF", "reader-1"];
    assert!(odd.iter().all(|odd| !page.contains(odd)), "{page}");
}

#[tokio::test]
async fn latency_of_upstreams_the_process_and_the_index_are_seen() {
    let world = healed().await;
    assert!(world.metric(r#"iiif_mender_upstream_seconds_count{kind="image"}"#) >= 1.0);
    assert_eq!(world.metric(r#"iiif_mender_canvas_request_seconds_count{kind="visit"}"#), 1.0);
    // It is counted a moment after it can be asked.
    patiently("the index is counted", || world.metric("iiif_mender_index_bytes") > 0.0).await;
    for name in [
        "iiif_mender_index_refreshed_timestamp_seconds",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_threads",
        "process_start_time_seconds",
    ] {
        assert!(world.metric(name) > 0.0, "{name}");
    }
    assert_eq!(world.metric(r#"iiif_mender_lane_waiting{lane="viewer"}"#), 0.0);
}

#[tokio::test]
async fn canvas_requests_that_wait_are_seen_in_their_lane() {
    let bed = testbed::Testbed::builder().book("obj/book", 4).page_size(64, 64).start().await;
    let world = World::over(bed, "heal.ladder = visit\nheal.ahead = 0\nheal.concurrency = 1").await;
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let pages = world.bed.pages();
    let paths: Vec<_> = pages.iter().map(|page| page.image_path("full/full/0/default.jpg")).collect();
    let asked = futures_util::future::join_all(paths.iter().map(|path| world.get(path)));
    let seen = async {
        let waiting = || world.metric(r#"iiif_mender_lane_waiting{lane="viewer"}"#);
        patiently("three wait for the one place", || waiting() == 3.0).await;
        assert_eq!(world.app.metrics.snapshot().now.flights, 4);
        world.bed.service.releases();
    };
    let (answers, ()) = futures_util::future::join(asked, seen).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn a_heal_is_told_from_its_start_to_its_end_under_the_id_of_its_request() {
    let world = World::with(TRUSTING).await;
    let mut news = world.app.metrics.listen();
    world.bed.expires_everything();
    let page = world.bed.page();
    world.get_with(&page.image_path(TILE), &[("x-request-id", "reader-1")]).await;
    world.settles().await;
    let mut told = Vec::new();
    loop {
        match news.try_recv() {
            Ok(news) => told.push(serde_json::to_value(news).expect("JSON")),
            Err(TryRecvError::Empty) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let names: Vec<_> = told.iter().map(|it| it["event"].as_str().expect("a name")).collect();
    assert_eq!(names.first(), Some(&"heal_started"), "{told:?}");
    assert!(names.contains(&"heal_step") && names.contains(&"heal_ended"), "{told:?}");
    assert!(told.iter().all(|it| it["request"] == "reader-1" && it["identifier"] == *page.identifier));
    let ended = told.iter().find(|it| it["event"] == "heal_ended").expect("an end");
    assert_eq!(
        (&ended["verdict"], &ended["rung"], &ended["waiting"]),
        (&"healed".into(), &"visit".into(), &1.into())
    );
}

#[tokio::test]
async fn a_breaker_that_opens_and_closes_is_told() {
    let world = World::with("heal.ladder = visit\nheal.breaker_failures = 1\nheal.breaker_open = 60s").await;
    let mut news = world.app.metrics.listen();
    world.bed.expires_everything();
    world.bed.service.fails_canvas(503);
    world.get(&world.bed.page().image_path(TILE)).await;
    world.settles().await;
    world
        .client
        .send(
            http::Method::POST,
            &admin(&world, "/api/v1/breakers/reset"),
            &[("content-type", "application/json")],
        )
        .await
        .expect("an answer");
    let mut breakers = Vec::new();
    while breakers.len() < 2 {
        let next = tokio::time::timeout(Duration::from_secs(20), news.recv()).await;
        if let LiveEvent::Breaker { open, .. } = next.expect("in time").expect("news").event {
            breakers.push(open);
        }
    }
    assert_eq!(breakers, [true, false]);
}

#[tokio::test]
async fn the_snapshot_counts_and_remembers_the_last_minutes() {
    let world = healed().await;
    world.app.metrics.sample();
    let seen = world.app.metrics.snapshot();
    assert_eq!((seen.requests["healed"], seen.canvas_requests), (1, 1));
    patiently("the index is counted", || world.app.metrics.snapshot().now.index_images > 0).await;
    assert_eq!(seen.points.iter().map(|point| point.healed).sum::<u64>(), 1);
    assert!(SAMPLE_EVERY >= Duration::from_secs(1));
    let json = serde_json::to_value(&seen).expect("JSON");
    assert_eq!(json["now"]["waiting"], 0);
}
