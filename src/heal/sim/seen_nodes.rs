//! Cases of several nodes that the simulation found, shrunk, each with the name of the fault.

use super::case::{Case, ImageWant, SimAct};
use super::library::SimDocument;
use super::seen::{ask, case, keeps_every_promise};
use super::world::SimWorld;

#[test]
fn who_joined_a_variant_that_was_a_plain_visit_goes_on_to_the_rebuild() {
    // Pages of one PDF share their canvas. Its stored one heals nothing, and is not requested again.
    let world = SimWorld {
        honours_disallow: false,
        canvas_ms: 10_000,
        concurrency: 1,
        ahead: 0,
        nodes: 2,
        ..SimWorld::plain()
    };
    let pages: Vec<_> = (10..18).collect();
    keeps_every_promise(&Case { stored: 2, ..case(world, &[], &pages) });
}

#[test]
fn each_node_lets_one_viewer_in_beside_those_who_build() {
    let fetch = |leaf, patience| {
        let document = SimDocument::Canvas(leaf);
        SimAct::Fetch { document, viewers: 1, patience }
    };
    let world = SimWorld { canvas_ms: 200, concurrency: 1, nodes: 2, ..SimWorld::plain() };
    let acts = [
        (142_135, fetch(13, 200_000)),
        (142_153, fetch(14, 200_000)),
        (142_158, fetch(15, 200_000)),
        (142_198, fetch(17, 1_237)),
        (142_242, fetch(0, 200_000)),
    ];
    keeps_every_promise(&case(world, &acts, &[]));
}

#[test]
fn who_waited_for_another_node_s_request_asks_once_more_if_the_image_is_gone_again() {
    // The request began for a repair, before the readers came. Its key is written, and lost before the canvas is built.
    let readers =
        SimAct::Ask { image: 13, want: ImageWant::Tile(100), readers: 6, patience: 200_000, cookie: false };
    let document = SimDocument::Manifest(1);
    let acts = [
        (3_862, SimAct::Flush),
        (8_243, SimAct::Fetch { document, viewers: 1, patience: 200_000 }),
        (8_661, ask(10, 100)),
        (11_169, SimAct::EvictKeys),
        (17_887, SimAct::EvictKeys),
        (18_203, readers),
    ];
    let world = SimWorld { canvas_ms: 2_000, ahead: 0, nodes: 2, ..SimWorld::plain() };
    keeps_every_promise(&case(world, &acts, &[]));
}

#[test]
fn a_key_that_was_lost_while_its_canvas_was_built_is_asked_for_again_although_another_node_heard_the_echo() {
    let info = SimAct::Ask { image: 8, want: ImageWant::Info, readers: 1, patience: 200_000, cookie: true };
    let acts = [
        (1_322, SimAct::EvictKeys),
        (10_971, ask(6, 256)),
        (12_856, ask(12, 256)),
        (14_950, info),
        (14_950, ask(8, 64)),
        (17_672, SimAct::EvictKeys),
        (19_273, ask(8, 100)),
    ];
    let world = SimWorld { canvas_ms: 2_000, concurrency: 1, ahead: 8, nodes: 2, ..SimWorld::plain() };
    keeps_every_promise(&case(world, &acts, &[]));
}
