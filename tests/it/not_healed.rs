//! What is never healed: by its status, by its shape, or because somebody said so.

use http::Method;
use testbed::{Flow, Origin, Testbed};

use crate::support::edge::{Edge, route};
use crate::support::world::{TILE, VISIT, World, book, proxy, visited_book};

fn assert_nothing_was_asked(world: &World) {
    let counts = world.bed.counts();
    assert_eq!((counts.healing(), counts.resources), (0, 0), "{counts:?}");
}

#[tokio::test]
async fn no_status_but_the_configured_ones_means_expired() {
    let world = book(3, VISIT).await;
    let page = world.bed.page();
    for status in [400, 401, 403, 410, 415, 429, 500, 502, 503, 504] {
        world.bed.images.image_faults(status);
        let answer = world.get(&page.image_path(TILE)).await;
        assert_eq!((answer.status, answer.header("heal-status")), (status, ""));
    }
    world.bed.images.recovers();
    world.bed.images.resets();
    assert_eq!(world.get(&page.image_path(TILE)).await.status, 502);
    world.bed.images.recovers();
    world.bed.images.goes_down().await;
    assert_eq!(world.get(&page.image_path(TILE)).await.status, 502);
    assert_nothing_was_asked(&world);
}

#[tokio::test]
async fn trouble_is_bridged_by_the_file_where_it_is_known_and_passes_where_it_is_not() {
    let world = book(3, "heal.ahead = 0").await;
    let pages = world.bed.pages();
    world.knows_file_of(&pages[0]);
    world.bed.redis.goes_down();
    let known = world.get(&pages[0].image_path(TILE)).await;
    assert_eq!((known.status, &known.body), (200, &pages[0].picture(TILE)));
    let unknown = world.get(&pages[1].image_path(TILE)).await;
    assert_eq!((unknown.status, unknown.header("heal-status")), (500, ""));
    assert_eq!(world.bed.counts().healing(), 0);
    // A body that is refused by the file too goes out as the first answer was.
    world.bed.redis.comes_up();
    world.bed.images.image_faults(503);
    assert_eq!(world.get(&pages[0].image_path(TILE)).await.status, 503);
}

#[tokio::test]
async fn trouble_is_bridged_although_its_answer_has_the_last_place() {
    let world = book(3, "heal.ahead = 0\nupstream.max_requests = 1\nupstream.queue_wait = 100ms").await;
    let pages = world.bed.pages();
    world.knows_file_of(&pages[0]);
    world.bed.redis.goes_down();
    assert_eq!(world.get(&pages[0].image_path(TILE)).await.status, 200);
    let live = world.asks_directly(&pages[1].image_path(TILE)).await;
    let unknown = world.get(&pages[1].image_path(TILE)).await;
    assert_eq!((unknown.status, &unknown.body), (500, &live.body));
}

#[tokio::test]
async fn without_direct_statuses_trouble_passes_even_where_the_file_is_known() {
    let world = book(3, "heal.ahead = 0\nheal.direct_statuses = 404").await;
    let page = world.bed.page();
    world.knows_file_of(&page);
    world.bed.redis.goes_down();
    let answer = world.get(&page.image_path(TILE)).await;
    assert_eq!((answer.status, answer.header("heal-status")), (500, ""));
    assert_eq!(world.bed.counts().direct, 0);
}

#[tokio::test]
async fn only_the_configured_statuses_mean_expired() {
    let world = book(3, &format!("{VISIT}\nheal.statuses = 410")).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    let answer = world.get(&page.image_path(TILE)).await;
    assert_eq!((answer.status, answer.header("heal-status")), (404, ""));
    assert_nothing_was_asked(&world);
}

#[tokio::test]
async fn switched_off_it_is_a_plain_proxy() {
    let world = book(3, "heal.enabled = false").await;
    let page = world.bed.page();
    world.bed.heats_info();
    world.bed.expires_everything();
    assert_eq!(world.get(&page.image_path(TILE)).await.status, 404);
    assert_eq!(world.get(&page.info_path()).await.status, 200);
    assert_nothing_was_asked(&world);
}

#[tokio::test]
async fn only_identifiers_of_the_pattern_are_healed() {
    let bed = Testbed::builder().book("obj/book", 2).page_size(600, 800).start().await;
    let pages = bed.pages();
    let world = World::over(bed, &format!("{VISIT}\nheal.identifiers = ^{}", &pages[0].uuid[..8])).await;
    world.bed.expires_everything();
    assert_eq!(world.get(&pages[0].image_path(TILE)).await.status, 200);
    assert_eq!(world.get(&pages[1].image_path(TILE)).await.status, 404);
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1);
}

#[tokio::test]
async fn a_trusted_peer_may_have_the_raw_answer_and_a_stranger_may_not() {
    for (trusted, status) in [("127.0.0.0/8", 404), ("192.0.2.0/24", 200)] {
        let world =
            book(3, &format!("{VISIT}\nheal.skip_header = x-raw\nserver.trusted_proxies = {trusted}")).await;
        let page = world.bed.page();
        world.bed.expires_everything();
        let answer = world.get_with(&page.image_path(TILE), &[("x-raw", "1")]).await;
        assert_eq!(answer.status, status, "{trusted}");
        world.settles().await;
        assert_eq!(world.bed.counts().canvas, usize::from(status == 200));
        assert_eq!(world.get(&page.image_path(TILE)).await.status, 200, "without the header it heals");
    }
}

#[tokio::test]
async fn other_methods_and_other_shapes_are_passed_on_and_never_healed() {
    let world = book(3, VISIT).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    for rest in [
        "",
        "canvas/c/1",
        "full/full/0/default",
        "full/0,/0/default.jpg/x",
        "full/full/0",
        "manifest.json",
        "full/,/0/default.jpg",
    ] {
        let direct = world.asks_directly(&page.image_path(rest)).await;
        let answer = world.get(&page.image_path(rest)).await;
        assert_eq!((answer.status, answer.header("heal-status")), (direct.status, ""), "{rest}");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let url = world.url(&page.image_path(TILE));
        let answer = world.client.send(method.clone(), &url, &[]).await.expect("an answer");
        assert_eq!(answer.status, 405, "{method}");
    }
    assert_nothing_was_asked(&world);
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a viewer connects")]
async fn a_get_with_a_body_is_refused_on_an_image_route_and_breaks_nobody_s_connection() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = book(3, VISIT).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    let mut stream = tokio::net::TcpStream::connect(world.app.addresses[0]).await.expect("it listens");
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nGET /",
        page.image_path(TILE)
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    let reading =
        tokio::time::timeout(std::time::Duration::from_secs(10), stream.read_to_string(&mut answer));
    reading.await.expect("it does not hang").expect("text");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_nothing_was_asked(&world);
    assert_eq!(world.get(&page.image_path(TILE)).await.status, 200);
}

#[tokio::test]
async fn a_base64_identifier_s_404_is_a_missing_file_and_asks_nobody() {
    let bed = Testbed::builder().book("obj/book", 2).page_size(600, 800).start().await;
    let world = World::over(bed, VISIT).await;
    let manifest = world.folder.path().join("manifests/p3.json");
    std::fs::write(&manifest, world.bed.manifest_json_p3("obj/book")).expect("written");
    let page = world.bed.page();
    world.bed.fedora.removes_file(&page.path);
    for _ in 0..10 {
        assert_eq!(world.get(&page.direct_path(TILE)).await.status, 404);
    }
    assert_nothing_was_asked(&world);
}

#[tokio::test]
async fn a_heal_that_says_ok_and_changes_nothing_ends_in_the_404_without_a_loop() {
    let world = visited_book(1, "heal.ladder = visit").await;
    let page = world.bed.page();
    // The canvas is whole, out of the cache, and the key stays gone: visiting is all that is allowed.
    world.bed.caches_everything();
    world.bed.redis.evict_keys();
    for (turn, status) in ["failed", "cooling", "cooling"].into_iter().enumerate() {
        let answer = world.get(&page.image_path(TILE)).await;
        assert_eq!((answer.status, answer.header("heal-status")), (404, status), "{turn}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    world.settles().await;
    let counts = world.bed.counts();
    assert_eq!((counts.canvas, counts.visits), (1, 1));
    assert_eq!(
        world.metric(r#"iiif_mender_requests_total{route="image",outcome="failed",status="4xx"}"#),
        1.0
    );
}

#[tokio::test]
async fn an_error_in_the_body_of_a_200_is_a_failure_and_not_called_again_soon() {
    let world = visited_book(1, "").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    let service = Origin::start(|seen| {
        if seen.target.contains("/resources/") {
            Origin::answer(403, &[], Flow::chunked("no"))
        } else {
            Origin::answer(200, &[("content-type", "application/json")], Flow::chunked(r#"{"error":"busy"}"#))
        }
    });
    let (app, _folder) = proxy(&world.bed, &world.bed.images.origin(), &service.url(), VISIT).await;
    let url = format!("http://{}{}", app.addresses[0], page.image_path(TILE));
    let canvases = || service.seen().iter().filter(|seen| seen.target.contains("/canvas/")).count();
    let first = world.client.get(&url, &[]).await.expect("an answer");
    assert_eq!((first.status, first.header("heal-status")), (404, "failed"));
    let asked = canvases();
    assert!(asked <= 2, "a visit, and at most one rebuild");
    for _ in 0..10 {
        let again = world.client.get(&url, &[]).await.expect("an answer");
        assert_eq!((again.status, again.header("heal-status")), (404, "cooling"));
    }
    assert_eq!(canvases(), asked);
}

#[tokio::test]
async fn errors_of_the_image_server_pass_as_they_are() {
    for status in [400, 403, 410, 500, 503] {
        let own = [("cache-control", "max-age=7"), ("x-own", "1")];
        let origin = Origin::start(move |_| Origin::answer(status, &own, Flow::sized("so it says")));
        let images = route("/iiif/2/", &format!("{}/iiif/2/", origin.url()), "image", "");
        let edge = Edge::routed(&images, "heal.enabled = false").await;
        let answer = edge.get("/iiif/2/x/full/full/0/default.jpg").await;
        assert_eq!((answer.status, &*answer.text()), (status, "so it says"));
        assert_eq!((answer.header("cache-control"), answer.header("x-own")), ("max-age=7", "1"));
    }
}

#[tokio::test]
async fn a_body_that_breaks_is_an_aborted_message_and_nothing_is_healed() {
    let world = visited_book(1, "").await;
    let page = world.bed.page();
    for path in [page.image_path(TILE), page.info_path()] {
        world.bed.images.cuts_body_after(10);
        for _ in 0..3 {
            let asked = world.client.get(&world.url(&path), &[]).await;
            assert!(asked.is_err(), "{path}: {asked:?}");
        }
        world.bed.images.recovers();
        assert_eq!(world.get(&path).await.status, 200);
    }
    assert_eq!(world.bed.counts().healing(), 0, "{:?}", world.bed.counts());
}

#[tokio::test]
async fn without_an_image_server_the_answer_is_502_and_no_canvas_is_asked_for() {
    let world = visited_book(1, "").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.images.goes_down().await;
    for path in [page.image_path(TILE), page.info_path(), page.thumbnail_path()] {
        let answer = world.get(&path).await;
        assert_eq!((answer.status, answer.header("heal-status")), (502, ""), "{path}");
    }
    world.settles().await;
    assert_eq!(world.bed.counts().healing(), 0, "{:?}", world.bed.counts());
    // Back again it is asked again, and heals.
    world.bed.images.comes_up();
    assert_eq!(world.get(&page.image_path(TILE)).await.body, page.picture(TILE));
}
