//! Manifests that are shorter than what is known of them: for every reason for which an image may be lacking, with `/resources`
//! open and closed. What is proven is believed; what a fault took away comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join;
use iiif_mender::iiif::manifest;
use iiif_mender::index::learn::DocumentLearner;
use serde_json::{Value, json};
use testbed::{Fetched, Kind, Page, Testbed};

use crate::support::world::{World, patiently};

/// Pages of the book.
const PAGES: usize = 4;

/// Why a page that is known of the book does not stand in it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// Its file was deleted.
    Gone,
    /// The repository knows nothing of its canvas: 500, as for a fault.
    Refused,
    /// Its canvas shows another image.
    Disowned,
    /// It stands in another book now.
    Elsewhere,
}

use Reason::{Disowned, Elsewhere, Gone, Refused};

async fn world(closed: bool, more: &str) -> World {
    let bed = Testbed::builder()
        .book("obj/book", u32::try_from(PAGES).expect("small"))
        .single("obj/single")
        .page_size(64, 64);
    let quick = "heal.ahead = 0\nindex.learn = true\nheal.cooldown = 100ms\nheal.backoff_max = 100ms";
    let world = World::over(bed.start().await, &format!("{quick}\n{more}")).await;
    if closed {
        world.bed.service.closes_resources();
    }
    world
}

fn canvases(manifest: &Fetched) -> usize {
    manifest.json()["sequences"][0]["canvases"].as_array().map_or(0, Vec::len)
}

fn rebuilds(world: &World) -> usize {
    let targets = [Kind::Presentation, Kind::Rebuild].into_iter().flat_map(|kind| world.bed.targets(kind));
    targets.filter(|target| target.contains("update=true")).count()
}

/// A page of the book with this canvas and image.
fn leaf(like: &Page, canvas: &str, image: &str) -> Value {
    let public = like.canvas_url.strip_suffix(&like.canvas_path).expect("a public base");
    let id = format!("{public}/iiif/2/{image}");
    json!({ "@id": canvas, "@type": "sc:Canvas", "height": 64, "width": 64, "images": [{ "@type": "oa:Annotation",
        "resource": { "@id": format!("{id}/full/full/0/default.jpg"), "service": { "@id": id, "profile": "level2" } } }] })
}

/// Makes the book lack a page for each of the reasons; the index knows the longer one. Answers the book's name, and how many
/// pages it really has.
fn lacks(world: &World, reasons: &[Reason]) -> (String, usize) {
    let pages = world.bed.pages_of("obj/book");
    let mut longer: Value = serde_json::from_str(&world.bed.manifest_json("obj/book")).expect("JSON");
    let known = longer["sequences"][0]["canvases"].as_array_mut().expect("a list");
    let nobody = |number: usize| format!("00000000-0000-3000-8000-{number:012}");
    let mut left = PAGES;
    for (at, reason) in reasons.iter().enumerate() {
        let page = &pages[0];
        match reason {
            Gone => {
                world.bed.fedora.removes_file(&pages[PAGES - 1].path);
                left -= 1;
            }
            Refused => {
                let canvas = page.canvas_url.replace("obj/book", "obj/never");
                known.push(leaf(page, &canvas, &nobody(at)));
            }
            Disowned => known.push(leaf(page, &pages[1].canvas_url, &nobody(at))),
            Elsewhere => {
                let single: Value =
                    serde_json::from_str(&world.bed.manifest_json("obj/single")).expect("JSON");
                known.push(single["sequences"][0]["canvases"][0].clone());
            }
        }
    }
    let (document, canvases) = manifest::read(longer.to_string().as_bytes()).expect("a manifest");
    let name = document.id.clone().expect("an id");
    DocumentLearner::new(&world.app.index).document(&document, &canvases, &name).expect("it is learned");
    if reasons.contains(&Gone) {
        world.bed.expires_everything();
    }
    (name, left)
}

/// Asks until nobody is told any more that the document lacks something.
async fn until_believed(world: &World, path: &str, pages: usize) {
    for _ in 0..600 {
        let shorter = world.get(path).await;
        assert_eq!((shorter.status, canvases(&shorter)), (200, pages));
        if shorter.header("heal-status").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is never believed: {} rebuilds", rebuilds(world));
}

#[tokio::test]
async fn a_shorter_manifest_is_believed_whatever_the_reason_and_is_not_built_again_and_again() {
    let all = [
        &[Gone][..],
        &[Refused],
        &[Disowned],
        &[Elsewhere],
        &[Gone, Refused],
        &[Refused, Disowned],
        &[Disowned, Elsewhere],
        &[Gone, Refused, Disowned, Elsewhere],
    ];
    for reasons in all {
        for closed in [false, true] {
            let world = world(closed, "").await;
            let (_, left) = lacks(&world, reasons);
            let path = world.bed.page().presentation_path;
            until_believed(&world, &path, left).await;
            // Whether or not all could be proven, it must have come the same a few times at most.
            let so_far = rebuilds(&world);
            assert!(so_far <= 10, "{reasons:?}, closed: {closed}: {so_far}");
            if reasons == [Gone] {
                assert_eq!(so_far, 0, "there is nothing that a rebuild could bring back");
            }
            let shorter = world.get(&path).await;
            assert_eq!((canvases(&shorter), shorter.header("heal-status")), (left, ""), "{reasons:?}");
        }
    }
}

#[tokio::test]
async fn what_a_fault_takes_away_beside_what_is_truly_gone_comes_back() {
    for reasons in [&[Gone][..], &[Refused], &[Disowned], &[Elsewhere]] {
        for closed in [false, true] {
            let world = world(closed, "").await;
            let (name, left) = lacks(&world, reasons);
            let known = world.app.index.manifest_canvases(&name).expect("an index").len();
            let path = world.bed.page().presentation_path;
            world.bed.service.poisons_nested(503);
            for _ in 0..5 {
                let poisoned = world.get(&path).await;
                assert_eq!((poisoned.status, canvases(&poisoned)), (200, 0), "{reasons:?}, closed: {closed}");
                assert_ne!(poisoned.header("heal-status"), "", "{reasons:?}, closed: {closed}");
                assert_eq!(poisoned.header("cache-control"), "no-store");
            }
            let learned = world.app.index.manifest_canvases(&name).expect("an index").len();
            assert_eq!(learned, known, "a fault is not learned: {reasons:?}, closed: {closed}");
            world.bed.service.nested_is_well();
            let mut seen = 0;
            for _ in 0..600 {
                seen = canvases(&world.get(&path).await);
                if seen == left {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(seen, left, "{reasons:?}, closed: {closed}");
        }
    }
}

#[tokio::test]
async fn a_fault_that_comes_and_goes_is_never_taken_for_the_truth() {
    for closed in [false, true] {
        let world = world(closed, "").await;
        let page = world.bed.page();
        let whole = world.get(&page.presentation_path).await;
        assert_eq!(canvases(&whole), PAGES);
        // What passed is learned behind the answer.
        let known =
            || world.app.index.manifest_canvases(&world_name(&world)).is_ok_and(|known| known.len() == PAGES);
        patiently("the book is known", known).await;
        let over = AtomicBool::new(false);
        let flickers = async {
            while !over.load(Ordering::Relaxed) {
                world.bed.service.poisons_nested(503);
                tokio::time::sleep(Duration::from_millis(fastrand::u64(1..15))).await;
                world.bed.service.nested_is_well();
                tokio::time::sleep(Duration::from_millis(fastrand::u64(1..15))).await;
            }
        };
        let direct = format!("{}{}?update=true", world.bed.service.origin(), page.presentation_path);
        let views = async {
            let mut poorer = 0;
            for _ in 0..30 {
                // Somebody has it built into the fault.
                testbed::get(&direct).await;
                let seen = world.get(&page.presentation_path).await;
                if canvases(&seen) < PAGES {
                    poorer += 1;
                    assert_ne!(seen.header("heal-status"), "", "closed: {closed}: {seen:?}");
                }
            }
            over.store(true, Ordering::Relaxed);
            poorer
        };
        let ((), poorer) = join(flickers, views).await;
        world.bed.service.nested_is_well();
        let known = world.app.index.manifest_canvases(&world_name(&world)).expect("an index").len();
        assert_eq!(known, PAGES, "closed: {closed}, {poorer} times poorer");
        for _ in 0..600 {
            let seen = world.get(&page.presentation_path).await;
            if canvases(&seen) == PAGES {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let cured = world.get(&page.presentation_path).await;
        assert_eq!(
            cured.text(),
            world.bed.manifest_json("obj/book"),
            "closed: {closed}, {poorer} times poorer"
        );
        patiently("nobody is waiting", || world.metric("iiif_mender_waiting_viewers") == 0.0).await;
    }
}

/// What the book calls itself.
fn world_name(world: &World) -> String {
    let book: Value = serde_json::from_str(&world.bed.manifest_json("obj/book")).expect("JSON");
    book["@id"].as_str().expect("an id").to_owned()
}
