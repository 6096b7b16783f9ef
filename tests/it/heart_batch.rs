//! `check` and `heal` where looks lie, where files are lost, and beside a running `serve`.

use std::time::Duration;

use testbed::Testbed;

use crate::batch_world::Batch;
use crate::commands::Serving;
use crate::heart_world::{pages, tile};

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
        let counts = batch.bed.counts();
        // A canvas that is asked for once more is one canvas; a book is asked for as one.
        let mut asked = [
            testbed::Kind::Visit,
            testbed::Kind::Variant,
            testbed::Kind::Rebuild,
            testbed::Kind::BookVariant,
        ]
        .map(|kind| batch.bed.targets(kind))
        .concat();
        for target in &mut asked {
            target.truncate(target.find('?').unwrap_or(target.len()));
        }
        asked.sort();
        asked.dedup();
        let told = healed.json()["asked"].as_u64().expect("a number");
        let is_true =
            if asked.is_empty() { told == 0 } else { told > 0 && told <= counts.canvas.max(16) as u64 };
        assert!(is_true, "{kind}, closed: {closed}: told {told}, asked {}: {counts:?}", asked.len());
    }
}

#[tokio::test]
async fn heal_beside_a_running_serve_shares_its_canvas_requests() {
    let bed = Testbed::builder().book("obj/book", 60).page_size(64, 64).start().await;
    let batch = Batch::with(bed, "ahead = 0");
    let text = std::fs::read_to_string(batch.file("config.toml")).expect("a file");
    let text = text.replace(
        "[server]\n",
        "[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n[server]\nlisten = \"127.0.0.1:0\"\n",
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
    assert!(counts.canvas * 20 <= 60 * 23, "{} canvas requests for 60 pages", counts.canvas);
}
