//! What viewers ask of the canvas service themselves, and what strangers pretend to be.

use futures_util::future::join_all;
use http::Method;
use testbed::Testbed;

use crate::support::healing_world::{Before, book, keys_are_back, lost, read, tile};
use crate::support::world::{World, patiently};

/// As the canvas service calls itself.
const SERVICE: (&str, &str) = ("user-agent", "Apache-HttpClient/4.5.13 (Java/11.0.24)");

/// Slower than anything that is stored.
const BUILD: std::time::Duration = std::time::Duration::from_millis(400);

#[tokio::test]
async fn forty_spellings_of_one_canvas_request_are_few_builds_and_one_at_a_time() {
    type Fields = &'static [(&'static str, &'static str)];
    let kinds: [(&str, Method, Fields, bool); 6] = [
        ("Cookie", Method::GET, &[("cookie", "a=1")], false),
        ("Range", Method::GET, &[("range", "bytes=0-99")], false),
        ("If-None-Match", Method::GET, &[("if-none-match", "\"x\"")], false),
        ("HEAD", Method::HEAD, &[], false),
        ("?x=N", Method::GET, &[], true),
        ("Authorization", Method::GET, &[("authorization", "Bearer x")], false),
    ];
    for (kind, method, fields, odd) in kinds {
        let world = book(1, "").await;
        let page = world.bed.page();
        world.bed.expires_everything();
        world.bed.service.delay_after_key(BUILD);
        let viewers = (0..40).map(|number| {
            let query = if odd { format!("?x={number}") } else { String::new() };
            let (method, url) = (method.clone(), world.url(&format!("{}{query}", page.canvas_path)));
            async { world.client.send(method, &{ url }, fields).await.expect("an answer") }
        });
        for answer in join_all(viewers).await {
            assert!(matches!(answer.status, 200 | 206 | 304 | 503), "{kind}: {}", answer.status);
        }
        world.settles().await;
        let counts = world.bed.counts();
        assert!(counts.generations_most <= 2, "{kind}: {} builds at once", counts.generations_most);
        assert!(counts.generations <= 2, "{kind}: {} builds of one canvas", counts.generations);
    }
}

#[tokio::test]
async fn a_crawler_of_two_hundred_canvases_has_two_of_them_built_at_once() {
    let world = book(200, "").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    world.bed.service.delay_after_key(std::time::Duration::from_millis(20));
    let viewers = pages.iter().map(|page| async { world.get(&page.canvas_path).await });
    for answer in join_all(viewers).await {
        match answer.status {
            200 => {}
            503 => assert!(answer.header("retry-after").parse::<u32>().is_ok(), "{:?}", answer.headers),
            other => panic!("{other}"),
        }
    }
    world.settles().await;
    let counts = world.bed.counts();
    // Where two take long (a quarter of a second, as on a busy machine), one viewer is let in beside them.
    assert!(counts.generations_most <= 3, "{} builds at once", counts.generations_most);
}

#[tokio::test]
async fn stored_canvases_are_answered_while_two_others_are_being_built() {
    let world = book(12, "").await;
    let pages = world.bed.pages();
    world.bed.caches_everything();
    for page in &pages[..2] {
        world.bed.redis.forgets_canvas(&page.path);
    }
    world.bed.service.stalls_after_key();
    let builds: Vec<_> = pages[..2].iter().map(|page| world.asks(&page.canvas_path)).collect();
    world.bed.ledger.until(|counts| counts.generations_now == 2).await;
    let stored = pages[2..].iter().map(|page| async { world.get(&page.canvas_path).await.status });
    assert_eq!(lost(&join_all(stored).await), 0);
    assert!(builds.iter().all(|build| !build.is_finished()));
    world.bed.service.releases();
    for build in builds {
        assert_eq!(build.await.expect("not aborted").status, 200);
    }
}

#[tokio::test]
async fn nobody_has_a_good_document_built_anew_during_a_fault() {
    let forms = ["update=true", "update", "update=", "%75pdate=true", "a=b&update=true", "update=%74rue"];
    for form in forms {
        let world = book(3, "").await;
        let page = world.bed.page();
        world.bed.caches_everything();
        let presentation = format!("{}{}", world.bed.service.origin(), page.presentation_path);
        assert_eq!(testbed::get(&presentation).await.status, 200);
        let before = Before::of(&world);
        world.bed.service.poisons_nested(503);
        for path in [&page.canvas_path, &page.presentation_path] {
            let answer = world.get(&format!("{path}?{form}")).await;
            assert_eq!(answer.status, 200, "{form}");
        }
        world.settles().await;
        before.unharmed(&world);
        assert_eq!(world.bed.counts().rebuilds, 0, "{form}");
    }
}

#[tokio::test]
async fn a_canvas_id_that_asks_for_a_rebuild_is_asked_for_without_it() {
    for ladder in ["visit", "direct,register,variant,visit,rebuild"] {
        let bed = Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await;
        let text = bed.manifest_json("obj/book");
        let pages = bed.pages();
        // The testbed's own manifest is written over.
        let world = World::beside(bed, &format!("heal.ahead = 0\nheal.ladder = {ladder}"), |manifests| {
            let sly = pages.iter().fold(text.clone(), |text, page| {
                text.replace(&format!("{}\"", page.canvas_url), &format!("{}?update=true\"", page.canvas_url))
            });
            assert_ne!(sly, text);
            std::fs::write(manifests.join("obj_book.json"), sly).expect("a file");
        })
        .await;
        world.bed.expires_everything();
        assert_eq!(lost(&read(&world, &pages, 0).await), 0, "{ladder}");
        world.settles().await;
        assert_eq!(world.bed.counts().rebuilds, 0, "{ladder}");
    }
}

#[tokio::test]
async fn a_canvas_that_passes_through_has_its_expired_image_healed() {
    let world = book(6, "").await;
    let pages = world.bed.pages();
    world.bed.caches_everything();
    world.bed.redis.evict_keys();
    let before = Before::of(&world);
    for page in &pages {
        assert_eq!(world.get(&page.canvas_path).await.status, 200);
    }
    keys_are_back(&world.bed, &pages).await;
    world.settles().await;
    before.unharmed(&world);
}

#[tokio::test]
async fn a_stranger_who_calls_himself_the_service_leaves_no_image_expired() {
    let world = book(6, "").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let reader = world.asks(&pages[0].image_path(&tile(0)));
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    for page in &pages[1..] {
        let forged = [SERVICE, ("x-forwarded-for", "192.0.2.7")];
        let (client, url) = (world.client.clone(), world.url(&page.info_path()));
        // It may wait as any viewer does: nobody waits for it.
        tokio::spawn(async move { client.get(&url, &forged).await.map(|answer| answer.status) });
    }
    let readers: Vec<_> = pages[1..].iter().map(|page| world.asks(&page.image_path(&tile(1)))).collect();
    patiently("they wait", || world.metric("iiif_mender_waiting_viewers") >= 6.0).await;
    world.bed.service.releases();
    assert_eq!(reader.await.expect("not aborted").status, 200);
    for reader in readers {
        assert_eq!(reader.await.expect("not aborted").status, 200);
    }
    assert_eq!(lost(&read(&world, &pages, 2).await), 0);
}

#[tokio::test]
async fn a_forged_echo_is_no_404_for_whoever_asked_by_it() {
    let world = book(6, "server.trusted_proxies = 127.0.0.0/8").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    world.bed.restart_image_server();
    world.bed.service.delay_after_key(BUILD);
    let reader = world.asks(&pages[0].image_path(&tile(0)));
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    // From an address that no echo came from, for images of canvases that nobody builds.
    let forged = pages[1..].iter().map(|page| async {
        world.get_with(&page.info_path(), &[SERVICE, ("x-forwarded-for", "192.0.2.7")]).await.status
    });
    assert_eq!(lost(&join_all(forged).await), 0);
    assert_eq!(reader.await.expect("not aborted").status, 200);
}

#[tokio::test]
async fn how_many_manifests_are_built_at_once_and_how_many_viewers_wait_for_them_is_configured() {
    let bed = Testbed::builder().page_size(64, 64);
    let bed = (0..6).fold(bed, |bed, book| bed.book(&format!("obj/b{book}"), 2)).start().await;
    let more = "heal.ahead = 0\nheal.document_concurrency = 1\nheal.max_waiting = 2\nheal.build_after = 1h";
    let world = World::over(bed, more).await;
    world.bed.images.stalls_info();
    let paths: std::collections::BTreeSet<_> =
        world.bed.pages().into_iter().map(|page| page.presentation_path).collect();
    let mut paths = paths.into_iter();
    let mut asks = || world.asks(&paths.next().expect("a manifest"));
    let first = asks();
    world.bed.ledger.until(|counts| counts.presentation == 1).await;
    let waiting = [asks(), asks()];
    patiently("two wait", || world.metric("iiif_mender_document_waiting") == 2.0).await;
    let refused = asks().await.expect("not aborted");
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").parse::<u32>().is_ok(), "{:?}", refused.headers);
    assert_eq!(world.events("viewer_refused"), 1.0);
    assert_eq!(world.bed.counts().presentation, 1, "one at once");
    world.bed.images.releases();
    assert_eq!(first.await.expect("not aborted").status, 200);
    for waits in waiting {
        assert_eq!(waits.await.expect("not aborted").status, 200);
    }
    assert_eq!(world.metric("iiif_mender_document_waiting"), 0.0);
}

#[tokio::test]
async fn a_viewer_whose_turn_does_not_come_in_time_is_told_to_come_back_and_counted() {
    let bed = Testbed::builder().book("obj/a", 2).book("obj/b", 2).page_size(64, 64).start().await;
    let more = "heal.ahead = 0\nheal.document_concurrency = 1\nheal.wait = 200ms\nheal.build_after = 1h";
    let world = World::over(bed, more).await;
    world.bed.images.stalls_info();
    let pages = world.bed.pages();
    let first = world.asks(&pages[0].presentation_path);
    world.bed.ledger.until(|counts| counts.presentation == 1).await;
    let late = world.get(&pages[3].presentation_path).await;
    assert_eq!((late.status, world.events("viewer_wait_expired")), (503, 1.0));
    assert!(late.header("retry-after").parse::<u32>().is_ok(), "{:?}", late.headers);
    world.bed.images.releases();
    assert_eq!(first.await.expect("not aborted").status, 200);
}

#[tokio::test]
async fn a_canvas_that_cannot_be_built_is_tried_by_a_few_at_once_and_not_by_all_who_wait() {
    let world = book(1, "heal.build_after = 1h").await;
    let page = world.bed.page();
    // Nothing is stored, so each one that asks has it tried anew.
    world.bed.service.fails_canvas(500);
    world.bed.service.canvas_delay(BUILD);
    let (world, url) = (&world, world.url(&page.canvas_path));
    let viewers = (0..12).map(|number| {
        let (url, cookie) = (url.clone(), format!("a={number}"));
        async move { world.client.send(Method::GET, &url, &[("cookie", &cookie)]).await.expect("an answer") }
    });
    for answer in join_all(viewers).await {
        assert!(answer.status >= 500, "{}", answer.status);
    }
    let most = world.bed.counts().canvas_most;
    assert!(most <= 2, "{most} at once");
}
