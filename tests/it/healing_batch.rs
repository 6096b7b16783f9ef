//! `check` and `heal` where looks lie, where files are lost, and beside a running `serve`.

use std::time::Duration;

use testbed::Testbed;

use crate::support::batch_world::Batch;
use crate::support::healing_world::{pages, tile};
use crate::support::program::Serving;

#[tokio::test]
async fn check_and_heal_are_not_fooled_by_a_derivative_cache() {
    for closed in [false, true] {
        let batch = Batch::over(pages(20).derivative_cache().start().await);
        let all = batch.bed.pages();
        if closed {
            batch.bed.service.closes_resources();
        }
        assert_eq!(batch.run(&["check", "--tiles"]).await.code, 0);
        for _ in 0..2 {
            batch.bed.expires_everything();
            let checked = batch.run(&["check", "--json"]).await;
            assert_eq!((checked.code, checked.verdicts().len()), (1, 20), "closed: {closed}");
            let healed = batch.run(&["heal", "--json"]).await;
            assert_eq!(healed.code, 0, "{}{}", healed.stdout, healed.stderr);
            assert!(all.iter().all(|page| batch.bed.redis.has_key(&page.identifier)), "closed: {closed}");
        }
    }
}

#[tokio::test]
async fn heal_brings_images_back_where_the_image_server_wants_a_login() {
    for closed in [false, true] {
        let batch = Batch::book(20).await;
        let all = batch.bed.pages();
        batch.bed.images.asks_for_login(true);
        if closed {
            batch.bed.service.closes_resources();
        }
        batch.bed.expires_everything();
        let healed = batch.run(&["heal"]).await;
        let asked = batch.bed.counts().canvas + batch.bed.counts().book_variants;
        assert!(asked > 0, "closed: {closed}: {}{}", healed.stdout, healed.stderr);
        assert!(all.iter().all(|page| batch.bed.redis.has_key(&page.identifier)), "closed: {closed}");
        if !closed {
            assert_eq!(healed.code, 0, "{}{}", healed.stdout, healed.stderr);
        }
    }
}

#[tokio::test]
async fn a_lost_file_is_never_reported_as_healed_and_stays_told() {
    for (cached, closed) in [(false, false), (true, false), (false, true)] {
        let mut bed = pages(3);
        if cached {
            bed = bed.derivative_cache();
        }
        let batch = Batch::over(bed.start().await);
        let page = batch.bed.page();
        if closed {
            batch.bed.service.closes_resources();
        }
        // Seen once, all of it.
        assert_eq!(batch.run(&["check", "--tiles"]).await.code, 0);
        let url = |path: &str| format!("{}{path}", batch.bed.images.origin());
        testbed::get(&url(&page.info_path())).await;
        batch.bed.fedora.removes_file(&page.path);
        batch.bed.expires(&page.identifier);
        for round in 0..2 {
            let healed = batch.run(&["heal", &page.identifier]).await;
            let told = format!("cached: {cached}, closed: {closed}, round {round}: {}", healed.stdout);
            assert_eq!(healed.code, 1, "{told}");
            assert!(!healed.stdout.contains("1 healed"), "{told}");
            assert_eq!(testbed::get(&url(&page.image_path(&tile(9)))).await.status, 404);
        }
        let checked = batch.run(&["check", "--json"]).await;
        assert_eq!(checked.code, 1, "{}", checked.stdout);
        assert_eq!(checked.verdicts().len(), 1, "{}", checked.stdout);
        let rebuilt = batch.bed.targets(testbed::Kind::Rebuild);
        assert!(rebuilt.is_empty(), "cached: {cached}, closed: {closed}: {rebuilt:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_missing_is_told_by_check_after_heal_told_it() {
    let batch = Batch::book(4).await;
    let page = batch.bed.page();
    batch.bed.fedora.removes_file(&page.path);
    batch.bed.expires_everything();
    let healed = batch.run(&["heal"]).await;
    assert_eq!(healed.code, 1, "{}", healed.stdout);
    let checked = batch.run(&["check"]).await;
    assert_eq!(checked.code, 1, "{}", checked.stdout);
    assert!(!checked.stdout.contains("nothing broken"), "{}", checked.stdout);
}

#[tokio::test]
async fn canvases_asked_for_are_those_that_the_service_was_asked_for() {
    for (kind, closed) in
        [("well", false), ("login", false), ("lost", false), ("lost", true), ("cached", true)]
    {
        let batch = Batch::over(pages(16).derivative_cache().start().await);
        let all = batch.bed.pages();
        batch.bed.caches_everything();
        if kind == "cached" {
            assert_eq!(batch.run(&["check", "--tiles"]).await.code, 0);
        }
        if kind == "login" {
            batch.bed.images.asks_for_login(true);
        }
        if kind == "lost" {
            for page in &all {
                batch.bed.fedora.removes_file(&page.path);
            }
        }
        if closed {
            batch.bed.service.closes_resources();
        }
        if kind != "well" {
            batch.bed.redis.evict_keys();
        }
        batch.bed.ledger.clear();
        let healed = batch.run(&["heal", "--json"]).await;
        let sent = sent(&batch);
        assert_eq!(healed.json()["asked"], sent, "{kind}, closed: {closed}: {:?}", batch.bed.counts());
        assert!((kind == "well") == (sent == 0), "{kind}, closed: {closed}: {sent} sent");
    }
}

/// Requests that had the canvas service build something or register a file.
fn sent(batch: &Batch) -> u64 {
    let counts = batch.bed.counts();
    u64::try_from(counts.canvas + counts.book_variants + counts.register).expect("few")
}

#[tokio::test]
async fn what_is_told_of_canvas_requests_is_what_was_sent_whichever_way_heal_takes() {
    let world = crate::support::world::World::over(pages(16).start().await, "").await;
    let batch = Batch::over(pages(16).start().await).with_default_ladder();
    batch.bed.expires_everything();
    let told = batch.run(&["heal", "--dry-run"]).await;
    assert!(!told.stdout.contains("canvas request"), "{}", told.stdout);
    assert_eq!((sent(&batch), told.code), (0, 1));
    let healed = batch.run(&["heal"]).await;
    let told = match sent(&batch) {
        1 => "1 canvas request".to_owned(),
        sent => format!("{sent} canvas requests"),
    };
    assert!(healed.stdout.contains(&told), "{told}: {}", healed.stdout);
    batch.bed.ledger.clear();
    // All is well.
    let healed = batch.run(&["heal"]).await;
    assert!(!healed.stdout.contains("canvas request"), "{}", healed.stdout);
    assert_eq!(sent(&batch), 0);
    // Another program does the work: what it sends is not known here.
    let via = batch.run(&["heal", "--json", "--via", &world.url("")]).await;
    assert!(via.json()["asked"].is_null(), "{}", via.stdout);
    let via = batch.run(&["heal", "--via", &world.url("")]).await;
    assert!(!via.stdout.contains("canvas request"), "{}", via.stdout);
    // Files that are gone: nothing is asked for where the service says so.
    for page in batch.bed.pages() {
        batch.bed.fedora.removes_file(&page.path);
    }
    batch.bed.ledger.clear();
    let lost = batch.run(&["heal", "--tiles"]).await;
    assert!(!lost.stdout.contains("canvas request"), "{}", lost.stdout);
    assert_eq!((sent(&batch), lost.code), (0, 1));
}

#[tokio::test]
async fn heal_asks_for_a_book_of_which_several_pages_are_gone_and_for_no_book_where_canvases_are_counted() {
    for closed in [false, true] {
        let batch = Batch::over(pages(40).start().await).with_default_ladder();
        let all = batch.bed.pages();
        if closed {
            batch.bed.service.closes_resources();
        }
        batch.bed.caches_everything();
        batch.bed.redis.evict_keys();
        let before = batch.bed.redis.stored();
        batch.bed.ledger.clear();
        let healed = batch.run(&["heal", "--json"]).await;
        assert_eq!(healed.code, 0, "{}{}", healed.stdout, healed.stderr);
        assert!(all.iter().all(|page| batch.bed.redis.has_key(&page.identifier)), "closed: {closed}");
        let counts = batch.bed.counts();
        assert_eq!(counts.book_variants, 1, "closed: {closed}: {counts:?}");
        // Those that were under way before anybody knew that books can be had.
        assert!(counts.canvas <= 8, "closed: {closed}: {counts:?}");
        assert!(counts.generations_most <= 2);
        assert_eq!(healed.json()["asked"], sent(&batch));
        assert_eq!(batch.bed.redis.stored().worse_than(&before), [""; 0]);
        // Few pages of many: each by itself.
        batch.bed.ledger.clear();
        for page in [3, 30] {
            batch.bed.expires(&all[page].identifier);
        }
        assert_eq!(batch.run(&["heal"]).await.code, 0);
        // The first ones find out whether the service builds beside: an old answer is asked for once more. Where a file was
        // learned from what passed meanwhile, its image is registered without a canvas.
        let counts = batch.bed.counts();
        let each = counts.variants + counts.register;
        assert!(counts.book_variants == 0 && (2..=4).contains(&each), "{counts:?}");
    }
    let batch = Batch::over(pages(40).start().await).with_default_ladder();
    batch.bed.expires_everything();
    assert_eq!(batch.run(&["heal", "--limit", "5"]).await.code, 1);
    let counts = batch.bed.counts();
    assert!(counts.book_variants == 0 && counts.canvas <= 6, "{counts:?}");
}

#[tokio::test]
async fn heal_beside_a_running_serve_shares_its_canvas_requests() {
    let bed = Testbed::builder().book("obj/book", 60).page_size(64, 64).start().await;
    let batch = Batch::with(bed, "ahead = 0");
    let text = std::fs::read_to_string(batch.file("config.toml")).expect("a file");
    let text = text.replace(
        "[server]\n",
        "[admin]\nlisten = \"127.0.0.1:0\"\nsetup_check = \"0s\"\n[log]\nformat = \"json\"\n[server]\nlisten = \"127.0.0.1:0\"\n",
    );
    std::fs::write(batch.file("config.toml"), text).expect("a file");
    let serving = Serving::start(batch.folder.path());
    batch.bed.service.image_server_url(format!("http://{}/iiif/2", serving.viewers));
    let all = batch.bed.pages();
    batch.bed.expires_everything();
    batch.bed.service.delay_after_key(Duration::from_millis(60));
    let client = testbed::Client::default();
    let read = async {
        for page in all.iter().rev() {
            let url = format!("http://{}{}", serving.viewers, page.image_path(&tile(0)));
            assert_eq!(client.get(&url, &[]).await.expect("an answer").status, 200);
        }
    };
    let (healed, ()) = tokio::join!(batch.run(&["heal"]), read);
    assert_eq!(healed.code, 0, "{}{}", healed.stdout, healed.stderr);
    let counts = batch.bed.counts();
    assert!(counts.generations_most <= 2, "{} builds at once", counts.generations_most);
    assert_eq!(counts.canvas, 60, "canvas requests for 60 pages: {counts:?}");
}
