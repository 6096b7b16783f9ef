//! Limits: how much the canvas service is asked at most, who goes first, and what is left alone.

use futures_util::future::join_all;
use testbed::Kind;

use crate::support::world::{TILE, World, patiently, proxy, visited_book};

/// A small whole image: healed behind the page that somebody looks at.
const THUMBNAIL: &str = "full/90,/0/default.jpg";

/// So many heals are under way, and all that can queue does: a round trip of somebody else's has passed since.
async fn heals_are_queued(world: &World, count: f64) {
    patiently("they heal", || world.metric("iiif_mender_flights") == count).await;
    world.get("/iiif/2/none/full/full/0/default.jpg").await;
}

#[tokio::test]
async fn a_hundred_canvases_at_once_are_asked_for_two_at_a_time_and_each_once() {
    let world = visited_book(100, "").await;
    world.bed.expires_everything();
    let pages = world.bed.pages();
    let paths: Vec<_> = pages.iter().map(|page| page.image_path(TILE)).collect();
    let answers = join_all(paths.iter().map(|path| world.get(path))).await;
    for (page, answer) in pages.iter().zip(answers) {
        assert_eq!((answer.status, &answer.body), (200, &page.picture(TILE)));
    }
    world.settles().await;
    let counts = world.bed.counts();
    assert_eq!((counts.canvas, counts.visits), (100, 100));
    assert_eq!(counts.canvas_most, 2);
}

#[tokio::test]
async fn a_viewer_goes_before_thumbnails_and_takes_a_page_of_theirs_along() {
    let world = visited_book(8, "heal.concurrency = 1").await;
    let pages = world.bed.pages();
    world.bed.service.closes_resources();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let first = world.asks(&pages[0].image_path(TILE));
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    let mut asked = vec![first];
    for (waiting, page) in pages[1..6].iter().enumerate() {
        asked.push(world.asks(&page.image_path(THUMBNAIL)));
        heals_are_queued(&world, waiting as f64 + 2.0).await;
    }
    // A page that nobody asked for before, and one whose thumbnail waits already, last of all.
    asked.push(world.asks(&pages[7].image_path(TILE)));
    heals_are_queued(&world, 7.0).await;
    asked.push(world.asks(&pages[5].image_path(TILE)));
    patiently("all wait", || world.metric("iiif_mender_waiting_viewers") == 8.0).await;
    world.bed.service.releases();
    for answer in join_all(asked).await {
        assert_eq!(answer.expect("not aborted").status, 200);
    }
    world.settles().await;
    let order = [0, 7, 5, 1, 2, 3, 4].map(|page: usize| pages[page].canvas_path.clone());
    assert_eq!(world.bed.targets(Kind::Visit), order);
}

#[tokio::test]
async fn a_failed_heal_is_told_to_all_who_waited_and_remembered_for_a_while_only() {
    let world = visited_book(2, "heal.cooldown = 300ms\nheal.backoff_max = 300ms").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.fails_canvas(500);
    world.bed.service.stalls_canvas();
    let path = page.image_path(TILE);
    let waiting: Vec<_> = (0..100).map(|_| world.asks(&path)).collect();
    patiently("they wait", || world.metric("iiif_mender_waiting_viewers") == 100.0).await;
    world.bed.service.releases();
    let original = world.asks_directly(&path).await;
    for answer in join_all(waiting).await {
        let answer = answer.expect("not aborted");
        assert_eq!((answer.status, answer.header("heal-status")), (404, "failed"));
        assert_eq!((&answer.body, answer.header("cache-control")), (&original.body, "no-store"));
    }
    assert_eq!(world.bed.counts().canvas, 1);
    let cooling = world.get(&path).await;
    assert_eq!((cooling.status, cooling.header("heal-status")), (404, "cooling"));
    assert_eq!(world.bed.counts().canvas, 1, "remembered");
    world.bed.service.recovers();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while world.get(&path).await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "a failure is not remembered for ever");
    }
    // A success is not a reason to leave it alone: lost again, healed again, at once.
    for _ in 0..3 {
        world.settles().await;
        world.bed.expires_everything();
        assert_eq!(world.get(&path).await.status, 200);
    }
}

#[tokio::test]
async fn the_breaker_opens_when_the_service_only_fails_and_closes_after_one_good_trial() {
    for fault in [429, 502, 503] {
        let world =
            visited_book(12, "heal.breaker_failures = 3\nheal.breaker_open = 400ms\nheal.concurrency = 1")
                .await;
        let pages = world.bed.pages();
        world.bed.expires_everything();
        world.bed.service.fails_canvas(fault);
        for page in &pages[..8] {
            assert_eq!(world.get(&page.image_path(TILE)).await.status, 404);
        }
        assert_eq!(world.bed.counts().canvas, 3, "{fault}");
        assert_eq!(world.events("breaker_opened"), 1.0);
        assert_eq!(world.get(&pages[8].image_path(TILE)).await.header("heal-status"), "cooling");
        world.bed.service.recovers();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while world.get(&pages[8].image_path(TILE)).await.status != 200 {
            assert!(tokio::time::Instant::now() < deadline, "{fault}: it never closed");
        }
        world.settles().await;
        assert_eq!(world.bed.counts().canvas, 4, "{fault}: the trial is the heal");
        assert_eq!(world.get(&pages[9].image_path(TILE)).await.status, 200);
    }
}

#[tokio::test]
async fn an_open_breaker_is_seen_in_the_scrape_and_closed_by_hand() {
    let world = visited_book(
        6,
        "heal.breaker_failures = 2\nheal.breaker_open = 1h\nheal.backoff_max = 1s\nheal.cooldown = 1ms",
    )
    .await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    world.bed.service.closes_resources();
    world.bed.service.fails_canvas(503);
    for page in &pages[..2] {
        assert_eq!(world.get(&page.image_path("full/64,/0/default.jpg")).await.status, 404);
    }
    world.settles().await;
    let admin = |path: &str| format!("http://{}{path}", world.app.admin.expect("an admin listener"));
    let scrape = testbed::get(&admin("/metrics")).await.text();
    assert!(scrape.contains("\niiif_mender_breakers_open 1\n"), "{scrape}");
    world.bed.service.recovers();
    let reset = world
        .client
        .send(http::Method::POST, &admin("/api/v1/breakers/reset"), &[("content-type", "application/json")])
        .await
        .expect("an answer");
    assert_eq!(reset.status, 200);
    assert!(testbed::get(&admin("/metrics")).await.text().contains("\niiif_mender_breakers_open 0\n"));
    assert_eq!(world.get(&pages[3].image_path("full/64,/0/default.jpg")).await.status, 200);
}

#[tokio::test]
async fn dead_canvases_do_not_open_the_breaker_for_those_that_are_well() {
    let world = visited_book(12, "heal.breaker_failures = 3").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    world.bed.service.fails_canvas(500);
    for page in &pages[..10] {
        assert_eq!(world.get(&page.image_path(TILE)).await.header("heal-status"), "failed");
    }
    world.bed.service.recovers();
    assert_eq!(world.get(&pages[10].image_path(TILE)).await.status, 200);
    assert_eq!(world.events("breaker_opened"), 0.0);
}

#[tokio::test]
async fn a_dead_canvas_service_keeps_no_viewer() {
    let world = visited_book(6, "").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    let dead = testbed::raw::Peer::start(vec![testbed::raw::Step::Reset]).await;
    let more = "heal.ahead = 0\nheal.breaker_failures = 2";
    let (app, _folder) = proxy(&world.bed, &world.bed.images.origin(), &dead.url(), more).await;
    let began = std::time::Instant::now();
    for page in &pages {
        let url = format!("http://{}{}", app.addresses[0], page.image_path(TILE));
        assert_eq!(world.client.get(&url, &[]).await.expect("an answer").status, 404);
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn more_viewers_than_may_wait_are_told_to_come_back() {
    let world = visited_book(2, "heal.max_waiting = 3").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let path = page.image_path(TILE);
    let waiting: Vec<_> = (0..3).map(|_| world.asks(&path)).collect();
    patiently("they wait", || world.metric("iiif_mender_waiting_viewers") == 3.0).await;
    for _ in 0..5 {
        let crowded = world.get(&path).await;
        assert_eq!((crowded.status, crowded.header("cache-control")), (503, "no-store"));
        assert!(crowded.header("retry-after").parse::<u32>().is_ok());
    }
    world.bed.service.releases();
    assert!(join_all(waiting).await.into_iter().all(|answer| answer.expect("not aborted").status == 200));
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1);
}

#[tokio::test]
async fn viewers_who_leave_leave_nothing_behind() {
    let world = visited_book(3, "heal.max_waiting = 20").await;
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let pages = world.bed.pages();
    for _ in 0..3 {
        let paths = pages.iter().map(|page| page.image_path(TILE));
        let waiting: Vec<_> = paths.flat_map(|path| (0..5).map(move |_| path.clone())).collect();
        let waiting: Vec<_> = waiting.iter().map(|path| world.asks(path)).collect();
        patiently("they wait", || world.metric("iiif_mender_waiting_viewers") == 15.0).await;
        for viewer in &waiting {
            viewer.abort();
        }
        patiently("they left", || world.metric("iiif_mender_waiting_viewers") == 0.0).await;
    }
    assert_eq!(world.metric("iiif_mender_flights"), 3.0, "the heals go on");
    world.bed.service.releases();
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 3);
    for page in &pages {
        assert_eq!(world.get(&page.image_path(TILE)).await.header("heal-status"), "");
    }
}

#[tokio::test]
async fn a_client_that_starts_very_many_heals_stands_behind_other_readers() {
    let more = "heal.concurrency = 1\nheal.per_client = 2\nserver.trusted_proxies = 127.0.0.0/8";
    let world = visited_book(8, more).await;
    let pages = world.bed.pages();
    world.bed.service.closes_resources();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let from = |client: &'static str, page: usize| {
        let (http, url) = (world.client.clone(), world.url(&pages[page].image_path(TILE)));
        tokio::spawn(async move { http.get(&url, &[("x-forwarded-for", client)]).await.expect("an answer") })
    };
    let mut asked = Vec::new();
    for page in 0..5 {
        asked.push(from("192.0.2.1", page));
        heals_are_queued(&world, page as f64 + 1.0).await;
    }
    asked.push(from("192.0.2.2", 5));
    heals_are_queued(&world, 6.0).await;
    world.bed.service.releases();
    assert!(join_all(asked).await.into_iter().all(|answer| answer.expect("not aborted").status == 200));
    world.settles().await;
    let order = [0, 1, 5, 2, 3, 4].map(|page: usize| pages[page].canvas_path.clone());
    assert_eq!(world.bed.targets(Kind::Visit), order);
    assert_eq!(world.events("client_demoted"), 3.0);
}

#[tokio::test]
async fn a_crawl_of_ten_thousand_unknown_identifiers_asks_the_canvas_service_nothing() {
    let world = visited_book(2, "index.cache = 1000").await;
    for batch in 0..100u32 {
        let paths = (0..100u32)
            .map(|at| format!("/iiif/2/{:08x}-0000-3000-8000-000000000000/info.json", batch * 100 + at));
        let paths: Vec<_> = paths.collect();
        let answers = join_all(paths.iter().map(|path| world.get(path))).await;
        assert!(answers.iter().all(|answer| (answer.status, answer.header("heal-status")) == (404, "")));
    }
    let counts = world.bed.counts();
    assert_eq!((counts.healing(), counts.resources, counts.info), (0, 0, 10_000));
    assert_eq!(world.metric("iiif_mender_flights"), 0.0);
    assert_eq!(world.get(&world.bed.page().image_path(TILE)).await.status, 200);
}

#[tokio::test]
async fn whoever_has_an_ipv6_network_is_one_client_under_all_its_addresses() {
    let world = visited_book(3, "heal.per_client = 1\nserver.trusted_proxies = 127.0.0.0/8").await;
    world.bed.expires_everything();
    for (page, client) in world.bed.pages().iter().zip(["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]) {
        let answer = world.get_with(&page.image_path(TILE), &[("x-forwarded-for", client)]).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(world.events("client_demoted"), 1.0);
}

#[tokio::test]
async fn images_that_are_served_from_their_files_leave_no_more_heals_behind_than_there_may_be() {
    let world = visited_book(8, "heal.ladder = direct,visit\nheal.max_flights = 3").await;
    let pages = world.bed.pages();
    for page in &pages {
        world.knows_file_of(page);
    }
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    for page in &pages {
        let answer = world.get(&page.image_path(TILE)).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(world.metric("iiif_mender_flights"), 3.0);
    assert_eq!(world.events("heal_refused"), 5.0);
    world.bed.service.releases();
    world.settles().await;
    world.get(&pages[7].image_path(TILE)).await;
    world.settles().await;
    assert!(world.bed.redis.has_key(&pages[7].identifier), "healed another time");
}

#[tokio::test]
async fn viewers_who_leave_at_once_cannot_begin_heals_without_end() {
    let world = visited_book(3, "heal.max_flights = 2").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    for (page, flights) in pages.iter().zip([1.0, 2.0]) {
        let viewer = world.asks(&page.image_path(TILE));
        patiently("it begins", || world.metric("iiif_mender_flights") == flights).await;
        viewer.abort();
    }
    patiently("they left", || world.metric("iiif_mender_waiting_viewers") == 0.0).await;
    let third = world.get(&pages[2].image_path(TILE)).await;
    assert_eq!((third.status, third.header("cache-control")), (503, "no-store"));
    // What is being healed already may be waited for.
    let first = world.asks(&pages[0].image_path(TILE));
    patiently("it waits", || world.metric("iiif_mender_waiting_viewers") == 1.0).await;
    world.bed.service.releases();
    assert_eq!(first.await.expect("not aborted").status, 200);
    world.settles().await;
    assert_eq!(world.get(&pages[2].image_path(TILE)).await.status, 200);
}

#[tokio::test]
async fn many_distinct_expired_images_leave_healthy_traffic_alone() {
    let world = visited_book(60, "heal.max_waiting = 40").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    let healthy = &pages[59];
    assert_eq!(world.get(&healthy.image_path(TILE)).await.status, 200);
    world.settles().await;
    world.bed.service.stalls_canvas();
    let crawl: Vec<_> = pages[..59].iter().map(|page| world.asks(&page.image_path(TILE))).collect();
    patiently("they wait", || world.metric("iiif_mender_waiting_viewers") == 40.0).await;
    for _ in 0..20 {
        let answer = world.get(&healthy.image_path(TILE)).await;
        assert_eq!((answer.status, answer.header("heal-status")), (200, ""));
    }
    assert!(world.bed.counts().canvas_now <= 2);
    world.bed.service.releases();
    let statuses: Vec<_> =
        join_all(crawl).await.into_iter().map(|answer| answer.expect("not aborted").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 40);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 19);
    world.settles().await;
}
