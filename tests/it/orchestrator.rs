//! Scenarios of the closest relative, DLCS Protagonist's Orchestrator, as far as they concern healing; those of the edge are
//! in `orchestrator_edge.rs`. docs/TESTING.md, "Somebody else's scenarios", says which test shows which.

use futures_util::future::join_all;
use http::Method;
use iiif_mender::app::App;
use testbed::{Fetched, Flow, Origin, Page, Testbed};
use tokio::task::JoinHandle;

use crate::world::{World, patiently, settings};

const VISIT: &str = "heal.ahead = 0\nheal.ladder = visit,rebuild";
const TILE: &str = "0,0,256,256/64,/0/default.jpg";

async fn book(pages: u32, more: &str) -> World {
    let bed = Testbed::builder().book("obj/book", pages).page_size(600, 800).start().await;
    World::over(bed, &format!("{VISIT}\n{more}")).await
}

fn asks(world: &World, method: Method, path: &str) -> JoinHandle<Fetched> {
    let (client, url) = (world.client.clone(), world.url(path));
    tokio::spawn(async move { client.send(method, &url, &[]).await.expect("an answer") })
}

/// Another iiif-mender before the same image server, with this canvas service.
async fn another(world: &World, service: &str) -> (App, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a directory");
    let manifests = folder.path().join("manifests");
    std::fs::create_dir(&manifests).expect("a directory");
    world.bed.write_manifests(&manifests).expect("manifests");
    let settings = settings(folder.path(), &world.bed.images.origin(), service, VISIT);
    let app = App::start(settings).await.expect("it starts");
    let keys: Vec<_> = world.bed.pages().into_iter().map(|page| page.identifier).collect();
    patiently("the index answers", || {
        keys.iter().all(|key| !app.index.owners(key).expect("an index").is_empty())
    })
    .await;
    (app, folder)
}

#[tokio::test]
async fn no_2_two_images_heal_side_by_side() {
    let world = book(2, "").await;
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let asked: Vec<_> =
        world.bed.pages().iter().map(|page| asks(&world, Method::GET, &page.image_path(TILE))).collect();
    world.bed.ledger.until(|counts| counts.canvas_now == 2).await;
    world.bed.service.releases();
    assert!(join_all(asked).await.into_iter().all(|answer| answer.expect("not aborted").status == 200));
}

#[tokio::test]
async fn no_7_a_heal_that_says_ok_and_changes_nothing_ends_in_the_404_without_a_loop() {
    let world = book(1, "heal.ladder = visit").await;
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
async fn no_8_an_error_in_the_body_of_a_200_is_a_failure_and_not_called_again_soon() {
    let world = book(1, "").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    let service = Origin::start(|seen| {
        if seen.target.contains("/resources/") {
            Origin::answer(403, &[], Flow::chunked("no"))
        } else {
            Origin::answer(200, &[("content-type", "application/json")], Flow::chunked(r#"{"error":"busy"}"#))
        }
    });
    let (app, _folder) = another(&world, &service.url()).await;
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
async fn no_10_an_image_that_is_lost_again_is_healed_again_at_once() {
    let world = book(1, "").await;
    let page = world.bed.page();
    for turn in 1..=4 {
        world.bed.expires_everything();
        let answer = world.get(&page.image_path(TILE)).await;
        assert!(answer.header("heal-status").starts_with("healed"), "{turn}: {:?}", answer.headers);
        world.settles().await;
        assert_eq!(world.bed.counts().canvas, turn);
    }
}

#[tokio::test]
async fn no_11_many_distinct_expired_images_leave_healthy_traffic_alone() {
    let world = book(60, "heal.max_waiting = 40").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    let healthy = &pages[59];
    assert_eq!(world.get(&healthy.image_path(TILE)).await.status, 200);
    world.settles().await;
    world.bed.service.stalls_canvas();
    let crawl: Vec<_> =
        pages[..59].iter().map(|page| asks(&world, Method::GET, &page.image_path(TILE))).collect();
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

#[tokio::test]
async fn no_14_a_healed_info_json_names_the_host_that_the_viewer_asked() {
    for (trusted, host) in [("127.0.0.0/8", Some("iiif.example.org")), ("192.0.2.0/24", None)] {
        let world = book(1, &format!("server.trusted_proxies = {trusted}")).await;
        let page = world.bed.page();
        world.bed.expires_everything();
        world.bed.restart_image_server();
        let fields = [
            ("x-forwarded-host", "iiif.example.org"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
        ];
        let info = world.get_with(&format!("{}?t=1", page.info_path()), &fields).await;
        assert!(info.header("heal-status").starts_with("healed"), "{:?}", info.headers);
        let base =
            host.map_or(format!("http://{}", world.app.addresses[0]), |host| format!("https://{host}"));
        assert_eq!(info.json()["@id"], format!("{base}/iiif/2/{}", page.identifier));
    }
}

#[tokio::test]
async fn no_17_info_json_and_fifty_tiles_share_one_heal() {
    let world = book(1, "").await;
    let page = world.bed.page();
    world.bed.heats_info();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let mut asked = vec![asks(&world, Method::GET, &page.info_path())];
    for tile in 0..50 {
        let rest = format!("{},0,10,10/10,/0/default.jpg", tile * 10);
        asked.push(asks(
            &world,
            if tile % 5 == 0 { Method::HEAD } else { Method::GET },
            &page.image_path(&rest),
        ));
    }
    // Two spellings of one identifier are one image.
    let spelled =
        page.image_path(TILE).replacen(&page.uuid[..1], &format!("%{:02x}", page.uuid.as_bytes()[0]), 1);
    let same = iiif_mender::iiif::Identifier::new(spelled["/iiif/2/".len()..].split('/').next().unwrap())
        .key()
        == page.identifier;
    if same {
        asked.push(asks(&world, Method::GET, &spelled));
    }
    patiently("all wait", || world.metric("iiif_mender_waiting_viewers") == asked.len() as f64).await;
    assert_eq!(world.metric("iiif_mender_flights"), 1.0);
    world.bed.service.releases();
    assert!(join_all(asked).await.into_iter().all(|answer| answer.expect("not aborted").status == 200));
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1);
}

#[tokio::test]
async fn no_21_two_instances_make_at_most_two_calls_and_are_both_right() {
    let world = book(3, "").await;
    let (second, _folder) = another(&world, &world.bed.service.origin()).await;
    world.bed.expires_everything();
    let pages = world.bed.pages();
    let asked = pages.iter().flat_map(|page: &Page| {
        let path = page.image_path(TILE);
        [world.url(&path), format!("http://{}{path}", second.addresses[0])]
    });
    let urls: Vec<_> = asked.collect();
    let answers = join_all(urls.iter().map(|url| world.client.get(url, &[]))).await;
    for (at, answer) in answers.into_iter().enumerate() {
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, &answer.body), (200, &pages[at / 2].picture(TILE)));
    }
    world.settles().await;
    assert!((3..=6).contains(&world.bed.counts().canvas), "{:?}", world.bed.counts());
}

#[tokio::test]
async fn no_22_other_methods_pass_while_an_image_is_being_healed() {
    let world = book(1, "").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let path = page.image_path(TILE);
    let get = asks(&world, Method::GET, &path);
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    let head = asks(&world, Method::HEAD, &path);
    patiently("both wait", || world.metric("iiif_mender_waiting_viewers") == 2.0).await;
    let options = asks(&world, Method::OPTIONS, &path).await.expect("not aborted");
    assert_eq!(options.status, 405, "the image server's own answer, at once");
    world.bed.service.releases();
    let (get, head) = (get.await.expect("not aborted"), head.await.expect("not aborted"));
    assert_eq!((get.status, &get.body), (200, &page.picture(TILE)));
    assert_eq!((head.status, head.body.len()), (200, 0));
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1);
}
