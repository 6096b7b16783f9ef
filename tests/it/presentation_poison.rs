//! A manifest or canvas that lacks images which the index knows is rebuilt, once the service is well and never before.

use futures_util::future::join_all;
use iiif_mender::index::learn::DocumentLearner;
use serde_json::Value;
use testbed::{Fetched, Kind, Testbed};

use crate::support::world::{World, patiently};

async fn world() -> World {
    book("heal.ahead = 0").await
}

async fn book(more: &str) -> World {
    World::over(
        Testbed::builder().book("obj/book", 3).single("obj/single").page_size(64, 64).start().await,
        more,
    )
    .await
}

fn canvases(manifest: &Fetched) -> usize {
    manifest.json()["sequences"][0]["canvases"].as_array().map_or(0, Vec::len)
}

/// Requests that had something built anew, whatever it was.
fn rebuilds(world: &World) -> usize {
    let kinds = [Kind::Presentation, Kind::Rebuild];
    let targets = kinds.into_iter().flat_map(|kind| world.bed.targets(kind));
    targets.filter(|target| target.contains("update=true")).count()
}

#[tokio::test]
async fn a_poisoned_manifest_is_whole_for_the_first_viewer_after_the_fault_and_is_not_rebuilt_during_it() {
    for fault in [403, 404, 429, 500, 503] {
        let world = world().await;
        let page = world.bed.page();
        world.bed.images.info_faults(fault);
        for _ in 0..3 {
            let poisoned = world.get(&page.presentation_path).await;
            assert_eq!((poisoned.status, canvases(&poisoned)), (200, 0), "{fault}");
            assert_ne!(poisoned.header("heal-status"), "", "{fault}");
            assert_eq!(poisoned.header("cache-control"), "no-store");
        }
        assert_eq!(rebuilds(&world), 0, "{fault}");
        world.bed.images.info_is_well();
        let whole = world.get(&page.presentation_path).await;
        assert_eq!(whole.text(), world.bed.manifest_json("obj/book"), "{fault}: {:?}", whole.headers);
        world.settles().await;
        let direct = testbed::get(&format!("{}{}", world.bed.service.origin(), page.presentation_path)).await;
        assert_eq!(canvases(&direct), 3);
    }
}

#[tokio::test]
async fn a_poisoned_canvas_is_whole_for_fifty_viewers_after_one_rebuild() {
    let world = world().await;
    let page = world.bed.page();
    world.bed.images.info_faults(503);
    testbed::get(&format!("{}{}", world.bed.service.origin(), page.canvas_path)).await;
    world.bed.images.info_is_well();
    let viewers = (0..50).map(|_| world.get(&page.canvas_path));
    for whole in join_all(viewers).await {
        assert_eq!(whole.text(), world.bed.canvas_json(&page.path));
        assert!(whole.header("heal-status").starts_with("healed; rung=rebuild"), "{:?}", whole.headers);
    }
    world.settles().await;
    assert_eq!(rebuilds(&world), 1);
}

#[tokio::test]
async fn viewers_of_other_languages_wait_for_the_rebuild_beside_each_other() {
    let world = world().await;
    let page = world.bed.page();
    world.bed.images.info_faults(503);
    testbed::get(&format!("{}{}", world.bed.service.origin(), page.canvas_path)).await;
    world.bed.images.info_is_well();
    world.bed.service.stalls_after_key();
    let viewers = ["de", "en", "fr"].map(|language| {
        let (client, url) = (world.client.clone(), world.url(&page.canvas_path));
        tokio::spawn(async move { client.get(&url, &[("accept-language", language)]).await })
    });
    patiently("all wait", || world.metric("iiif_mender_waiting_viewers") == 3.0).await;
    world.bed.service.releases();
    for viewer in viewers {
        let whole = viewer.await.expect("it ends").expect("an answer");
        assert_eq!(whole.text(), world.bed.canvas_json(&page.path));
    }
    world.settles().await;
    assert_eq!(rebuilds(&world), 1);
}

#[tokio::test]
async fn a_fault_that_only_the_service_can_see_is_not_rebuilt_into_either() {
    let world = world().await;
    let page = world.bed.page();
    world.bed.service.poisons_nested(503);
    for _ in 0..3 {
        let poisoned = world.get(&page.presentation_path).await;
        assert_eq!((canvases(&poisoned), poisoned.header("heal-status")), (0, "pending"));
    }
    assert_eq!(rebuilds(&world), 0);
    world.bed.service.nested_is_well();
    assert_eq!(canvases(&world.get(&page.presentation_path).await), 3);
}

#[tokio::test]
async fn who_saw_it_poisoned_and_went_away_has_it_cured_for_the_next_one() {
    let world = world().await;
    let page = world.bed.page();
    world.bed.images.info_faults(503);
    assert_eq!(canvases(&world.get(&page.presentation_path).await), 0);
    world.bed.images.info_is_well();
    patiently("it is cured behind", || world.events("cured") == 1.0).await;
    let direct = testbed::get(&format!("{}{}", world.bed.service.origin(), page.presentation_path)).await;
    assert_eq!(canvases(&direct), 3);
}

#[tokio::test]
async fn a_book_that_lost_a_file_is_served_as_it_is_and_never_rebuilt() {
    let world = world().await;
    let page = world.bed.page();
    world.bed.fedora.removes_file(&page.path);
    for _ in 0..5 {
        let shorter = world.get(&page.presentation_path).await;
        assert_eq!((shorter.status, canvases(&shorter), shorter.header("heal-status")), (200, 2, ""));
    }
    assert_eq!(rebuilds(&world), 0);
}

#[tokio::test]
async fn a_book_that_lost_a_page_whose_file_is_still_there_is_built_beside_twice_and_then_believed() {
    let world = book("heal.ahead = 0\nindex.learn = true").await;
    let page = world.bed.page();
    let name = knows_a_page_more(&world);
    for _ in 0..5 {
        let shorter = world.get(&page.presentation_path).await;
        assert_eq!((shorter.status, canvases(&shorter), shorter.header("heal-status")), (200, 3, ""));
    }
    let beside = world.bed.targets(Kind::BookVariant).len();
    // Before and after the missing page was proven to be there: a fault may have been there for one build.
    assert_eq!((rebuilds(&world), beside), (0, 2), "what is stored is as good as what is built beside");
    assert_eq!(world.events("poison_refuted"), 1.0);
    assert_eq!(
        world.app.index.manifest_canvases(&name).expect("an index").len(),
        3,
        "the new truth is learned"
    );
}

/// What is indexed has a page more than the book: that of another one.
fn knows_a_page_more(world: &World) -> String {
    let mut longer: Value = serde_json::from_str(&world.bed.manifest_json("obj/book")).expect("JSON");
    let other: Value = serde_json::from_str(&world.bed.manifest_json("obj/single")).expect("JSON");
    let pages = longer["sequences"][0]["canvases"].as_array_mut().expect("a list");
    pages.push(other["sequences"][0]["canvases"][0].clone());
    let read = iiif_mender::iiif::manifest::read(longer.to_string().as_bytes());
    let (document, canvases_of_it) = read.expect("a manifest");
    let name = document.id.clone().expect("an id");
    DocumentLearner::new(&world.app.index)
        .document(&document, &canvases_of_it, &name)
        .expect("it is learned");
    name
}

/// Asks for the book until it is believed to be all there is: by then it was built anew so often.
async fn until_believed(world: &World, path: &str, pages: usize) -> usize {
    for _ in 0..100 {
        let shorter = world.get(path).await;
        assert_eq!((shorter.status, canvases(&shorter)), (200, pages));
        if shorter.header("heal-status").is_empty() {
            return rebuilds(world);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it is never believed: {} rebuilds", rebuilds(world));
}

#[tokio::test]
async fn without_resources_a_book_that_lost_files_is_believed_and_never_rebuilt() {
    for status in [403, 404] {
        let world = world().await;
        world.bed.service.closes_resources_with(status);
        let pages = world.bed.pages();
        for page in &pages[..2] {
            world.bed.fedora.removes_file(&page.path);
        }
        world.bed.expires_everything();
        assert_eq!(until_believed(&world, &pages[0].presentation_path, 1).await, 0, "{status}");
        for _ in 0..5 {
            assert_eq!(world.get(&pages[0].presentation_path).await.header("heal-status"), "", "{status}");
        }
        assert_eq!(rebuilds(&world), 0, "{status}");
    }
}

#[tokio::test]
async fn without_resources_a_page_that_is_elsewhere_now_is_believed() {
    for more in ["", "\nheal.ladder = direct,register,visit,rebuild"] {
        let world = book(&format!(
            "heal.ahead = 0\nindex.learn = true\nheal.cooldown = 100ms\nheal.backoff_max = 100ms{more}"
        ))
        .await;
        world.bed.service.closes_resources();
        let page = world.bed.page();
        let name = knows_a_page_more(&world);
        let so_far = until_believed(&world, &page.presentation_path, 3).await;
        // With nothing that proves it, it must come the same several times. Where it is built beside, nothing is built over.
        let expected = if more.is_empty() { 0..=0 } else { 1..=10 };
        assert!(expected.contains(&so_far), "{more}: {so_far}");
        if more.is_empty() {
            let known = world.app.index.manifest_canvases(&name).expect("an index").len();
            assert_eq!(known, 3, "the new truth is learned");
            for _ in 0..5 {
                assert_eq!(world.get(&page.presentation_path).await.header("heal-status"), "");
            }
            assert_eq!(rebuilds(&world), so_far);
        }
    }
}

#[tokio::test]
async fn without_resources_a_fault_is_not_taken_for_the_truth() {
    let world = world().await;
    world.bed.service.closes_resources();
    let page = world.bed.page();
    world.bed.service.poisons_nested(503);
    for _ in 0..5 {
        let poisoned = world.get(&page.presentation_path).await;
        assert_eq!(canvases(&poisoned), 0);
        assert_ne!(poisoned.header("heal-status"), "");
        assert_eq!(poisoned.header("cache-control"), "no-store");
    }
    assert_eq!(rebuilds(&world), 0);
    world.bed.service.nested_is_well();
    patiently("it is cured", || world.events("cured") >= 1.0).await;
    assert_eq!(canvases(&world.get(&page.presentation_path).await), 3);
}

#[tokio::test]
async fn a_document_that_leaves_pages_out_on_purpose_is_left_alone() {
    let world = world().await;
    let page = world.bed.page();
    let path = format!("{}?disallow=image/jpeg", page.presentation_path);
    let shorter = world.get(&path).await;
    assert_eq!((shorter.status, shorter.header("heal-status")), (200, ""));
    assert_eq!((canvases(&shorter), rebuilds(&world)), (0, 0));
}

#[tokio::test]
async fn who_wants_no_rebuilds_gets_none() {
    for more in ["presentation.watch = false", "heal.enabled = false", "heal.ladder = direct,register,visit"]
    {
        let world = book(more).await;
        let page = world.bed.page();
        world.bed.service.poisons_nested(503);
        world.get(&page.presentation_path).await;
        world.bed.service.nested_is_well();
        assert_eq!(canvases(&world.get(&page.presentation_path).await), 0, "{more}");
        assert_eq!(rebuilds(&world), 0, "{more}");
    }
}
