//! "Poison" and "Load".

use testbed::{Page, Testbed};

use super::{ask, shown, update};

/// Canvas requests at once, all waiting at the gate.
async fn crowd(testbed: &Testbed, page: &Page, size: usize) {
    testbed.service.stalls_after_key();
    let url = format!("{}{}", testbed.service.origin(), page.canvas_path);
    let visits: Vec<_> = (0..size)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { testbed::get(&url).await.status })
        })
        .collect();
    testbed.ledger.until(|counts| counts.generations == size).await;
    testbed.service.releases();
    for visit in visits {
        assert_eq!(visit.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_nested_fault_leaves_an_empty_canvas_cached_and_only_an_update_after_the_fault_cures_it() {
    for status in [403, 404, 429, 500, 503] {
        let testbed = Testbed::builder().empty_redis().start().await;
        let page = testbed.page();
        testbed.images.info_faults(status);
        let poisoned = ask(&testbed, &page.canvas_path).await;
        assert_eq!(poisoned.status, 200);
        let json = poisoned.json();
        assert_eq!((&json["width"], &json["height"]), (&0.into(), &0.into()));
        assert!(poisoned.text().contains("\"images\" : [ ]"));
        ask(&testbed, &update(&page.canvas_path)).await;
        testbed.images.info_is_well();
        assert_eq!(ask(&testbed, &page.canvas_path).await.json()["width"], 0);
        assert_eq!(ask(&testbed, &update(&page.canvas_path)).await.json()["width"], 1200);
        assert_eq!(ask(&testbed, &page.canvas_path).await.json()["width"], 1200);
    }
}

#[tokio::test]
async fn the_key_is_alive_though_the_canvas_is_poisoned() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    testbed.service.poisons_nested(429);
    ask(&testbed, &page.canvas_path).await;
    assert_eq!(shown(&testbed, &page).await, 200);
    assert_eq!(testbed.redis.poisoned_duplicates(&page.path), 1);
}

#[tokio::test]
async fn a_poisoned_presentation_has_no_canvases_and_is_cured_apart_from_its_canvases() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    testbed.service.poisons_nested(500);
    let canvases =
        |manifest: &serde_json::Value| manifest["sequences"][0]["canvases"].as_array().unwrap().len();
    assert_eq!(canvases(&ask(&testbed, &page.presentation_path).await.json()), 0);
    ask(&testbed, &page.canvas_path).await;
    testbed.service.nested_is_well();
    assert_eq!(ask(&testbed, &update(&page.canvas_path)).await.json()["width"], 1200);
    assert_eq!(canvases(&ask(&testbed, &page.presentation_path).await.json()), 0);
    assert_eq!(canvases(&ask(&testbed, &update(&page.presentation_path)).await.json()), 5);
}

#[tokio::test]
async fn an_update_during_a_fault_overwrites_a_good_canvas() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    testbed.caches_everything();
    testbed.service.poisons_nested(503);
    ask(&testbed, &update(&page.canvas_path)).await;
    testbed.service.nested_is_well();
    assert_eq!(ask(&testbed, &page.canvas_path).await.json()["width"], 0);
}

#[tokio::test]
async fn concurrent_generations_leave_duplicates_and_five_poisoned_ones_need_three_updates() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    testbed.service.poisons_nested(500);
    // Fedora's two connections let them in two by two, but all write before any is cached.
    crowd(&testbed, &page, 5).await;
    assert_eq!(testbed.redis.canvas_duplicates(&page.path), 5);
    testbed.service.nested_is_well();
    for needed in [0, 0, 1200] {
        assert_eq!(ask(&testbed, &update(&page.canvas_path)).await.json()["width"], 1200);
        assert_eq!(ask(&testbed, &page.canvas_path).await.json()["width"], needed);
    }
    ask(&testbed, &update(&page.canvas_path)).await;
    assert_eq!(ask(&testbed, &page.canvas_path).await.json()["width"], 1200);
}

#[tokio::test]
async fn one_update_cures_four_duplicates() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    testbed.service.poisons_nested(500);
    crowd(&testbed, &page, 4).await;
    testbed.service.nested_is_well();
    ask(&testbed, &update(&page.canvas_path)).await;
    assert_eq!(ask(&testbed, &page.canvas_path).await.json()["width"], 1200);
    assert_eq!(testbed.redis.poisoned_duplicates(&page.path), 3);
}

#[tokio::test]
async fn two_stuck_nested_requests_block_every_other_build() {
    let testbed = Testbed::builder().book("obj/b", 4).empty_redis().start().await;
    testbed.images.stalls_info();
    let visits: Vec<_> = testbed
        .pages()
        .into_iter()
        .map(|page| {
            let url = format!("{}{}", testbed.service.origin(), page.canvas_path);
            tokio::spawn(async move { testbed::get(&url).await.status })
        })
        .collect();
    testbed.ledger.until(|counts| counts.generations == 4 && counts.nested_now == 2).await;
    testbed.images.releases();
    for visit in visits {
        assert_eq!(visit.await.unwrap(), 200);
    }
    let counts = testbed.counts();
    assert_eq!((counts.nested, counts.nested_most, counts.canvas_most), (4, 2, 4));
}

#[tokio::test]
async fn a_space_in_the_path_is_poisoned_from_birth() {
    let testbed = Testbed::builder().single("obj/sp ace").start().await;
    let canvas = ask(&testbed, "/iiif-service/fedora/canvas/obj/sp%20ace?update=true").await;
    assert_eq!((canvas.status, canvas.json()["width"].as_u64()), (200, Some(0)));
    assert!(canvas.text().contains("obj/sp%20ace"));
}
