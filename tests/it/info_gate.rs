//! The gate: info.json of an expired page is held until the image is good, so that its tiles never meet an expired one.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use testbed::{Page, Testbed};

use crate::support::world::{TILE, VISIT, World, patiently, proxy, visited_book};

/// The canvas service's own voice.
const SERVICE: (&str, &str) = ("user-agent", "Apache-HttpClient/4.5.13 (Java/11.0.24)");

async fn waiting(world: &World, viewers: f64) {
    patiently("they wait", || world.metric("iiif_mender_waiting_viewers") >= viewers).await;
}

fn tiles(page: &Page) -> Vec<String> {
    let corner =
        |at: u32| page.image_path(&format!("{},{},256,256/256,/0/default.jpg", at % 4 * 256, at / 4 * 256));
    (0..12).map(corner).collect()
}

#[tokio::test]
async fn info_json_of_an_expired_page_waits_and_then_no_tile_is_404_or_held() {
    for restarted in [false, true] {
        let world = World::with(VISIT).await;
        let page = world.bed.page();
        world.bed.heats_info();
        world.bed.expires_everything();
        if restarted {
            world.bed.restart_image_server();
        }
        world.bed.service.stalls_canvas();
        let info = world.asks(&page.info_path());
        world.bed.ledger.until(|counts| counts.canvas == 1).await;
        waiting(&world, 1.0).await;
        assert!(!info.is_finished(), "info.json went out before its image was good");
        world.bed.service.releases();
        let info = info.await.expect("not aborted");
        assert_eq!(info.status, 200);
        assert!(info.header("heal-status").starts_with("healed; rung=visit"), "{:?}", info.headers);
        assert!(info.json()["@id"].as_str().expect("an id").ends_with(&page.identifier));
        for tile in join_all(tiles(&page).iter().map(|path| world.get(path))).await {
            assert_eq!((tile.status, tile.header("heal-status")), (200, ""), "a tile met an expired image");
        }
        world.settles().await;
        assert_eq!(world.bed.counts().canvas, 1);
    }
}

#[tokio::test]
async fn what_is_alive_is_asked_for_once_and_remembered() {
    let world = World::with("heal.ahead = 0").await;
    let pages = world.bed.pages_of("obj/minutes");
    world.bed.heats_info();
    for _ in 0..20 {
        for page in &pages {
            let info = world.get(&page.info_path()).await;
            assert_eq!((info.status, info.header("heal-status")), (200, ""));
        }
    }
    let counts = world.bed.counts();
    assert_eq!((counts.info, counts.resources, counts.healing()), (100, 5, 0));
}

#[tokio::test]
async fn a_404_ends_the_belief_that_an_image_is_alive() {
    let world = World::with(VISIT).await;
    let page = world.bed.page();
    world.bed.heats_info();
    assert_eq!(world.get(&page.info_path()).await.status, 200);
    world.bed.expires_everything();
    // Believed alive, so info.json passes; the tile finds out, and heals.
    assert_eq!(world.get(&page.info_path()).await.header("heal-status"), "");
    assert!(world.get(&tiles(&page)[0]).await.header("heal-status").starts_with("healed"));
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1);
}

#[tokio::test]
async fn an_echo_never_meets_the_gate() {
    let world = World::with(VISIT).await;
    let page = world.bed.page();
    world.bed.heats_info();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let viewer = world.asks(&page.info_path());
    waiting(&world, 1.0).await;
    for _ in 0..3 {
        let echo = world.get_with(&page.info_path(), &[SERVICE]).await;
        assert_eq!((echo.status, echo.header("heal-status")), (200, ""), "the heap's own answer");
    }
    world.bed.restart_image_server();
    let echo = world.get_with(&page.info_path(), &[SERVICE]).await;
    assert_eq!((echo.status, echo.header("heal-status")), (404, ""), "the raw 404");
    // /resources is not counted: the flight itself looks there from time to time.
    assert_eq!(world.bed.counts().canvas, 1);
    world.bed.service.releases();
    assert_eq!(viewer.await.expect("not aborted").status, 200);
}

#[tokio::test]
async fn with_resources_closed_info_json_passes_and_its_tiles_heal() {
    let world = World::with(VISIT).await;
    let page = world.bed.page();
    world.bed.service.closes_resources();
    world.bed.heats_info();
    world.bed.expires_everything();
    let info = world.get(&page.info_path()).await;
    assert_eq!((info.status, info.header("heal-status")), (200, ""));
    for tile in join_all(tiles(&page).iter().map(|path| world.get(path))).await {
        assert_eq!(tile.status, 200);
    }
    world.settles().await;
    let counts = world.bed.counts();
    assert_eq!(counts.canvas, 1);
    assert_eq!(counts.resources, 1, "found closed once, and remembered");
}

#[tokio::test]
async fn a_slow_canvas_holds_info_json_for_long_and_tiles_only_as_long_as_a_viewer_waits() {
    let world = World::with(&format!("{VISIT}\nheal.wait = 300ms\nheal.wait_info = 15s")).await;
    let page = world.bed.page();
    world.bed.heats_info();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let info = world.asks(&page.info_path());
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    let began = Instant::now();
    let tile = world.get(&tiles(&page)[0]).await;
    let held = began.elapsed();
    assert_eq!(tile.status, 503);
    assert!(held >= Duration::from_millis(290) && held < Duration::from_secs(5), "{held:?}");
    assert_eq!((tile.header("cache-control"), tile.header("heal-status")), ("no-store", "pending"));
    assert_eq!(tile.header("access-control-allow-origin"), "*");
    assert!(tile.header("retry-after").parse::<u32>().is_ok());
    assert!(!info.is_finished());
    world.bed.service.releases();
    assert_eq!(info.await.expect("not aborted").status, 200);
    let late = world.get(&tiles(&page)[0]).await;
    assert_eq!((late.status, late.header("heal-status")), (200, ""));
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1, "late success needs no new call");
    assert_eq!(
        world.metric(r#"iiif_mender_requests_total{route="image",outcome="pending",status="5xx"}"#),
        1.0
    );
}

#[tokio::test]
async fn a_canvas_slower_than_everybody_s_patience_still_ends_well_for_the_next_one() {
    let world = World::with(&format!("{VISIT}\nheal.wait = 100ms\nheal.wait_info = 200ms")).await;
    let page = world.bed.page();
    world.bed.heats_info();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let info = world.get(&page.info_path()).await;
    assert_eq!((info.status, info.header("cache-control")), (503, "no-store"), "never the heap's lie");
    world.bed.service.releases();
    world.settles().await;
    let info = world.get(&page.info_path()).await;
    assert_eq!((info.status, info.header("heal-status")), (200, ""));
    assert_eq!(world.bed.counts().canvas, 1);
}

#[tokio::test]
async fn a_service_that_hangs_delays_one_info_json_and_not_every_one() {
    let bed = Testbed::builder().book("obj/book", 10).page_size(600, 800).start().await;
    let world = World::over(bed, "heal.ahead = 0").await;
    let pages = world.bed.pages();
    world.bed.heats_info();
    world.bed.service.hangs();
    let first = world.asks(&pages[0].info_path());
    world.bed.ledger.until(|counts| counts.resources == 1).await;
    // While the first question is open, nobody else waits for one.
    for page in &pages[1..] {
        let info = world.get(&page.info_path()).await;
        assert_eq!((info.status, info.header("heal-status")), (200, ""));
    }
    assert!(!first.is_finished(), "the others waited for as long as the first");
    assert_eq!(first.await.expect("not aborted").status, 200);
    assert_eq!(world.bed.counts().resources, 1);
    world.bed.service.releases();
}

#[tokio::test]
async fn a_gateway_whose_404_is_not_the_service_s_is_no_expiry() {
    let world = World::with(VISIT).await;
    // The gate must not hold healthy pages, nor a heal go unseen, because somebody else answers on that path.
    let gateway = testbed::Origin::start(|seen| {
        let body = format!(r#"{{"status":404,"path":"{}"}}"#, seen.target);
        testbed::Origin::answer(404, &[("content-type", "application/json")], testbed::Flow::chunked(body))
    });
    let page = world.bed.page();
    let (app, _folder) =
        proxy(&world.bed, &world.bed.images.origin(), &gateway.url(), "heal.ahead = 0").await;
    world.bed.heats_info();
    let url = format!("http://{}{}", app.addresses[0], page.info_path());
    for _ in 0..5 {
        let info = world.client.get(&url, &[]).await.expect("an answer");
        assert_eq!((info.status, info.header("heal-status")), (200, ""));
    }
    assert_eq!(gateway.seen().len(), 1, "asked once, and understood");
}

#[tokio::test]
async fn info_json_and_fifty_tiles_share_one_heal() {
    let world = visited_book(1, "").await;
    let page = world.bed.page();
    world.bed.heats_info();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let mut asked = vec![world.asks(&page.info_path())];
    for tile in 0..50 {
        let rest = format!("{},0,10,10/10,/0/default.jpg", tile * 10);
        asked.push(
            world.asks_with(if tile % 5 == 0 { Method::HEAD } else { Method::GET }, &page.image_path(&rest)),
        );
    }
    // Two spellings of one identifier are one image.
    let spelled =
        page.image_path(TILE).replacen(&page.uuid[..1], &format!("%{:02x}", page.uuid.as_bytes()[0]), 1);
    let same = iiif_mender::iiif::Identifier::new(spelled["/iiif/2/".len()..].split('/').next().unwrap())
        .key()
        == page.identifier;
    if same {
        asked.push(world.asks(&spelled));
    }
    patiently("all wait", || world.metric("iiif_mender_waiting_viewers") == asked.len() as f64).await;
    assert_eq!(world.metric("iiif_mender_flights"), 1.0);
    world.bed.service.releases();
    assert!(join_all(asked).await.into_iter().all(|answer| answer.expect("not aborted").status == 200));
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1);
}
