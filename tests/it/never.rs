//! What is never healed: by its status, by its shape, or because somebody said so.

use http::Method;
use testbed::Testbed;

use crate::world::World;

const VISIT: &str = "heal.ahead = 0\nheal.ladder = visit,rebuild";
const TILE: &str = "0,0,256,256/64,/0/default.jpg";

async fn book(more: &str) -> World {
    let bed = Testbed::builder().book("obj/book", 3).page_size(600, 800).start().await;
    World::over(bed, more).await
}

fn assert_nothing_was_asked(world: &World) {
    let counts = world.bed.counts();
    assert_eq!((counts.healing(), counts.resources), (0, 0), "{counts:?}");
}

#[tokio::test]
async fn no_status_but_the_configured_ones_means_expired() {
    let world = book(VISIT).await;
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
    let world = book("heal.ahead = 0").await;
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
    let world = book("heal.ahead = 0\nupstream.max_requests = 1\nupstream.queue_wait = 100ms").await;
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
    let world = book("heal.ahead = 0\nheal.direct_statuses = 404").await;
    let page = world.bed.page();
    world.knows_file_of(&page);
    world.bed.redis.goes_down();
    let answer = world.get(&page.image_path(TILE)).await;
    assert_eq!((answer.status, answer.header("heal-status")), (500, ""));
    assert_eq!(world.bed.counts().direct, 0);
}

#[tokio::test]
async fn only_the_configured_statuses_mean_expired() {
    let world = book(&format!("{VISIT}\nheal.statuses = 410")).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    let answer = world.get(&page.image_path(TILE)).await;
    assert_eq!((answer.status, answer.header("heal-status")), (404, ""));
    assert_nothing_was_asked(&world);
}

#[tokio::test]
async fn switched_off_it_is_a_plain_proxy() {
    let world = book("heal.enabled = false").await;
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
            book(&format!("{VISIT}\nheal.skip_header = x-raw\nserver.trusted_proxies = {trusted}")).await;
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
    let world = book(VISIT).await;
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
    let world = book(VISIT).await;
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
