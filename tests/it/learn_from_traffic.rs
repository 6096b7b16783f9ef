//! What passes through is learned from, and nothing that passes through is changed by it.

use testbed::Testbed;

use crate::support::world::{World, answers_for, patiently};

/// A world whose index knows nothing.
async fn ignorant() -> World {
    World::over(Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await, "index.sources = []")
        .await
}

#[tokio::test]
async fn a_manifest_that_passes_through_makes_its_images_healable() {
    let world = ignorant().await;
    let page = world.bed.page();
    let direct = testbed::get(&format!("{}{}", world.bed.service.origin(), page.presentation_path)).await;
    let ours = world.get(&page.presentation_path).await;
    assert_eq!((ours.status, &ours.body), (200, &direct.body));
    answers_for(&world.app, &world.bed.pages()).await;
    world.bed.expires_everything();
    let tile = world.get(&page.image_path("full/64,/0/default.jpg")).await;
    assert!(tile.header("heal-status").starts_with("healed"), "{:?}", tile.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_learned_is_counted_and_ends_the_warning_of_an_empty_index() {
    let bed = Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await;
    let world = World::over(bed, "index.sources = []\nadmin.setup_check = 1h").await;
    let is_warned = || world.metric("iiif_mender_setup_finding{about=\"index\",state=\"bad\"}") > 0.5;
    patiently("the index is empty", is_warned).await;
    world.get(&world.bed.page().presentation_path).await;
    patiently("it is counted", || world.metric("iiif_mender_index_images") > 2.5).await;
    assert!(world.metric("iiif_mender_index_manifests") > 0.5);
    patiently("it is empty no more", || !is_warned()).await;
}

#[tokio::test]
async fn broken_json_that_is_not_to_be_repaired_passes_as_it_is_and_is_salvaged_for_the_index() {
    let bed = Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await;
    let world = World::over(bed, "index.sources = []\npresentation.repair = false").await;
    let page = world.bed.page();
    world.bed.service.broken_json();
    let ours = world.get(&page.canvas_path).await;
    assert!(serde_json::from_slice::<serde_json::Value>(&ours.body).is_err(), "{}", ours.text());
    let is_known = || !world.app.index.owners(&page.identifier).expect("an index").is_empty();
    patiently("it is learned", is_known).await;
    assert_eq!(world.app.index.owners(&page.identifier).expect("an index")[0].canvas, page.canvas_url);
}

#[tokio::test]
async fn a_poisoned_manifest_does_not_make_the_index_forget() {
    let world = ignorant().await;
    let page = world.bed.page();
    world.get(&page.presentation_path).await;
    answers_for(&world.app, &world.bed.pages()).await;
    world.bed.redis.evict_manifests();
    world.bed.images.info_faults(503);
    let poisoned = world.get(&page.presentation_path).await;
    assert_eq!(poisoned.status, 200);
    patiently("it was looked at", || world.learned("learn_nothing") + world.learned("learn_poorer") >= 1.0)
        .await;
    assert_eq!(world.app.index.stats().expect("an index").images, 3);
}
