//! Cases that the simulation found, shrunk, each with the name of the fault.

use super::case::{Case, Garbage, ImageWant, MissingPeriod, SimAct, SimFault, TimedAct, TimedFault};
use super::library::{Library, SimDocument};
use super::run::play;
use super::world::{Resources, SimWorld};

/// Case of a quiet world with these events; these images are read at the end.
pub(super) fn case(world: SimWorld, acts: &[(u64, SimAct)], last: &[usize]) -> Case {
    let acts = acts.iter().map(|(ms, act)| TimedAct { ms: *ms, act: *act }).collect();
    Case { world, stored: 0, troubles: Vec::new(), gone: Vec::new(), acts, last: last.to_vec() }
}

fn everything() -> Vec<usize> {
    (0..Library::get().images.len()).collect()
}

pub(super) fn ask(image: usize, width: u32) -> SimAct {
    SimAct::Ask { image, want: ImageWant::Tile(width), readers: 1, patience: 200_000, cookie: true }
}

#[track_caller]
pub(super) fn keeps_every_promise(case: &Case) {
    let (broken, log) = play(case, true);
    assert!(broken.is_empty(), "{}\n{}", log.join("\n"), broken.join("\n"));
}

#[test]
fn a_key_that_is_lost_while_its_canvas_is_still_being_built_is_brought_back_once_more() {
    let slow = SimWorld { canvas_ms: 2_000, ..SimWorld::plain() };
    // The picture (leaf 17 is image 19) is back after half a second, its canvas is built after two.
    let acts =
        [(1_000, SimAct::EvictKeys), (1_100, ask(19, 64)), (2_200, SimAct::Expire(17)), (2_300, ask(19, 65))];
    keeps_every_promise(&case(slow.clone(), &acts, &[]));
    keeps_every_promise(&case(slow, &[(1_000, SimAct::EvictKeys)], &everything()));
}

#[test]
fn a_key_that_was_written_and_lost_between_two_looks_makes_no_file_missing() {
    // Written at 2,500 ms, lost at 2,700; probed at 2,350 and 2,750.
    let slow = SimWorld { canvas_ms: 2_000, ..SimWorld::plain() };
    let acts =
        [(1_000, SimAct::EvictKeys), (2_000, ask(19, 64)), (2_710, SimAct::Expire(17)), (3_250, ask(19, 65))];
    keeps_every_promise(&case(slow.clone(), &acts, &[]));
    // Written at 3,508 ms, when the canvas is nearly built; a later reader is not told that his file is gone.
    let late = SimWorld { key_early: false, ..slow };
    let acts =
        [(1_000, SimAct::EvictKeys), (2_000, ask(19, 64)), (3_515, SimAct::Expire(17)), (4_100, ask(19, 65))];
    keeps_every_promise(&case(late, &acts, &[]));
}

#[test]
fn a_canvas_that_cannot_be_built_is_not_asked_for_by_all_who_waited_for_the_first_at_once() {
    let document = SimDocument::Canvas(2);
    let acts = [(1_000, SimAct::Fetch { document, viewers: 13, patience: 200_000 })];
    let fault = TimedFault { fault: SimFault::Repository, from: 0, to: 60_000 };
    keeps_every_promise(&Case { troubles: vec![fault], ..case(SimWorld::plain(), &acts, &[]) });
}

#[test]
fn a_manifest_whose_first_request_takes_very_long_is_had_by_all_who_waited() {
    let document = SimDocument::Manifest(2);
    let acts = [(1_000, SimAct::Fetch { document, viewers: 16, patience: 200_000 })];
    keeps_every_promise(&case(SimWorld { canvas_ms: 60_000, ..SimWorld::plain() }, &acts, &[]));
}

#[test]
fn a_mass_expiry_heals_nothing_that_was_healed_a_moment_before() {
    for canvas_ms in [20, 100] {
        keeps_every_promise(&case(SimWorld { canvas_ms, ..SimWorld::plain() }, &[], &everything()));
    }
}

#[test]
fn while_one_request_tries_a_service_that_is_back_nobody_is_told_that_his_image_cools_down() {
    let asked = (0..8).map(|image| (11_000 + 400 * image as u64, ask(image, 64)));
    let mut acts = vec![(10_000, SimAct::Flush)];
    acts.extend(asked);
    let busy = TimedFault { fault: SimFault::Busy(7), from: 10_000, to: 60_000 };
    keeps_every_promise(&Case { troubles: vec![busy], ..case(SimWorld::plain(), &acts, &everything()) });
}

#[test]
fn a_429_to_the_viewer_s_own_request_is_no_healed_image() {
    let slow = SimWorld { canvas_ms: 10_000, key_early: false, ..SimWorld::plain() };
    let fault = TimedFault { fault: SimFault::Images(429), from: 9_000, to: 20_000 };
    let acts = [(1_000, SimAct::Flush), (2_000, ask(10, 64))];
    keeps_every_promise(&Case { troubles: vec![fault], ..case(slow, &acts, &[10]) });
}

#[test]
fn an_info_json_in_trouble_that_is_404_makes_no_file_missing() {
    let world = SimWorld { resources: Resources::Gateway, ..SimWorld::plain() };
    let fault = TimedFault { fault: SimFault::Info(404), from: 5_000, to: 20_000 };
    let acts = [(6_000, SimAct::Flush), (8_000, ask(5, 64))];
    keeps_every_promise(&Case { troubles: vec![fault], ..case(world, &acts, &[5]) });
}

#[test]
fn batch_does_not_believe_a_registration_of_a_file_that_is_gone() {
    let world = SimWorld { files_known: true, ..SimWorld::plain() };
    let gone = MissingPeriod { leaf: 5, from: 0, to: u64::MAX / 2 };
    let acts = [(1_000, SimAct::Flush), (2_000, SimAct::Mend(5))];
    keeps_every_promise(&Case { gone: vec![gone], ..case(world, &acts, &[]) });
}

#[test]
fn before_anybody_has_shown_which_server_has_the_images_no_other_is_asked_and_nothing_is_built() {
    let world = SimWorld { two_routes: true, resources: Resources::Closed, ahead: 4, ..SimWorld::plain() };
    keeps_every_promise(&case(world, &[(1_000, SimAct::Opened(0)), (5_000, ask(0, 64))], &everything()));
}

#[test]
fn an_info_json_that_is_refused_after_the_heal_is_not_called_healed() {
    let slow = SimWorld { canvas_ms: 10_000, ..SimWorld::plain() };
    let fault = TimedFault { fault: SimFault::Info(403), from: 2_500, to: 20_000 };
    let info = SimAct::Ask { image: 12, want: ImageWant::Info, readers: 1, patience: 200_000, cookie: true };
    keeps_every_promise(&Case {
        troubles: vec![fault],
        ..case(slow, &[(1_000, SimAct::Flush), (2_000, info)], &[12])
    });
}

#[test]
fn what_a_fault_showed_to_a_long_heal_is_not_told_to_who_comes_after_the_fault() {
    let world = SimWorld { stale_owners: 3, canvas_ms: 10_000, ..SimWorld::plain() };
    let fault = TimedFault { fault: SimFault::FileStore, from: 2_607, to: 22_607 };
    let info = SimAct::Ask { image: 6, want: ImageWant::Info, readers: 1, patience: 200_000, cookie: false };
    let acts = [(13_022, SimAct::Flush), (14_665, ask(7, 64)), (14_974, ask(11, 256)), (16_501, info)];
    keeps_every_promise(&Case { troubles: vec![fault], ..case(world, &acts, &[6]) });
}

#[test]
fn while_an_image_is_healed_no_reader_is_held_who_asks_for_another_tile() {
    let world = SimWorld { resources: Resources::Closed, login: true, canvas_ms: 2_000, ..SimWorld::plain() };
    let crowd =
        SimAct::Ask { image: 4, want: ImageWant::Tile(100), readers: 18, patience: 200_000, cookie: true };
    let acts = [(1_883, SimAct::EvictKeys), (33_684, ask(4, 256)), (34_480, crowd)];
    keeps_every_promise(&case(world, &acts, &[]));
}

#[test]
fn while_one_rebuild_finds_out_whether_the_service_is_well_the_others_wait_for_it() {
    let world = SimWorld { honours_disallow: false, ..SimWorld::plain() };
    let gone = MissingPeriod { leaf: 0, from: 0, to: u64::MAX / 2 };
    let one = case(world.clone(), &[(73_928, SimAct::Expire(13))], &[0, 13]);
    keeps_every_promise(&Case { stored: 1, gone: vec![gone], ..one });
    let slow = SimWorld { canvas_ms: 60_000, ..world };
    let acts = [(37_225, SimAct::EvictKeys), (172_320, ask(2, 128)), (182_823, ask(3, 100))];
    keeps_every_promise(&Case { stored: 1, ..case(slow, &acts, &[]) });
}

#[test]
fn pages_of_one_file_are_one_rebuild() {
    let world = SimWorld {
        honours_disallow: false,
        resources: Resources::Closed,
        canvas_ms: 50,
        ..SimWorld::plain()
    };
    let pages = case(world, &[(40_630, SimAct::EvictKeys)], &[17, 18]);
    keeps_every_promise(&Case { stored: 1, ..pages });
}

#[test]
fn behind_a_login_a_stored_canvas_that_heals_nothing_is_rebuilt() {
    let world =
        SimWorld { honours_disallow: false, login: true, resources: Resources::Closed, ..SimWorld::plain() };
    let crowd =
        SimAct::Ask { image: 0, want: ImageWant::Tile(128), readers: 18, patience: 200_000, cookie: true };
    let one = case(world.clone(), &[(36_980, SimAct::EvictKeys)], &[19]);
    keeps_every_promise(&Case { stored: 1, ..one });
    keeps_every_promise(&Case {
        stored: 1,
        ..case(world, &[(36_980, SimAct::EvictKeys), (40_306, crowd)], &[])
    });
}

#[test]
fn behind_a_login_a_canvas_is_cured_after_a_fault_and_after_the_breaker_was_open() {
    let world = SimWorld { honours_disallow: false, login: true, ..SimWorld::plain() };
    let troubles = vec![
        TimedFault { fault: SimFault::ServiceDown, from: 47_915, to: 55_915 },
        TimedFault { fault: SimFault::Nested, from: 29_673, to: 37_673 },
    ];
    let info = SimAct::Ask { image: 0, want: ImageWant::Info, readers: 1, patience: 200_000, cookie: true };
    let one = case(world, &[(2_071, SimAct::EvictKeys), (36_574, info)], &[]);
    keeps_every_promise(&Case { stored: 1, troubles, ..one });
}

#[test]
fn behind_a_login_an_info_json_goes_out_when_its_reader_sees_a_tile() {
    let world = SimWorld { login: true, resources: Resources::Gateway, ..SimWorld::plain() };
    let fault = TimedFault { fault: SimFault::Nested, from: 29_104, to: 89_104 };
    let info = SimAct::Ask { image: 11, want: ImageWant::Info, readers: 1, patience: 200_000, cookie: true };
    let acts = [(53_633, SimAct::EvictKeys), (56_284, info)];
    keeps_every_promise(&Case { troubles: vec![fault], ..case(world, &acts, &[]) });
}

#[test]
fn batch_does_not_believe_a_registration_that_nothing_confirms() {
    let world = SimWorld { files_known: true, resources: Resources::Closed, ..SimWorld::plain() };
    let gone = MissingPeriod { leaf: 3, from: 35_930, to: u64::MAX / 2 };
    let acts = [(32_641, ask(3, 128)), (50_939, SimAct::Mend(3))];
    keeps_every_promise(&Case { gone: vec![gone], ..case(world, &acts, &[]) });
}

#[test]
fn a_viewer_s_own_canvases_and_a_heal_share_their_places() {
    let fetch = |leaf, viewers| {
        let document = SimDocument::Canvas(leaf);
        SimAct::Fetch { document, viewers, patience: 200_000 }
    };
    let slow = SimWorld { canvas_ms: 2_000, ..SimWorld::plain() };
    let crawler = (0..18).map(|leaf| (2_000 + 10 * leaf as u64, fetch(leaf, 1)));
    let acts: Vec<_> = [(1_000, SimAct::Flush), (1_500, ask(9, 64))].into_iter().chain(crawler).collect();
    keeps_every_promise(&case(slow.clone(), &acts, &everything()));
    let book = SimAct::Fetch { document: SimDocument::Manifest(0), viewers: 20, patience: 200_000 };
    keeps_every_promise(&case(slow, &[(1_000, SimAct::Flush), (1_100, fetch(3, 20)), (1_200, book)], &[]));
}

#[test]
fn a_sweep_and_a_source_that_is_kept_warm_heal_what_nobody_asks_for() {
    for world in [
        SimWorld { sweep: true, canvas_ms: 100, ..SimWorld::plain() },
        SimWorld { warm: true, honours_disallow: false, canvas_ms: 500, ..SimWorld::plain() },
    ] {
        let crowd = (0..8).map(|image| (2_000 + image as u64, ask(image, 64)));
        let acts: Vec<_> = std::iter::once((1_000, SimAct::Flush)).chain(crowd).collect();
        keeps_every_promise(&case(world, &acts, &everything()));
    }
}

#[test]
fn an_image_whose_file_is_gone_is_no_witness_of_a_fault() {
    let world = SimWorld { honours_disallow: false, canvas_ms: 100, ..SimWorld::plain() };
    let gone = MissingPeriod { leaf: 0, from: 0, to: u64::MAX / 2 };
    let acts = [(1_000, ask(0, 64)), (5_000, SimAct::Expire(13)), (6_000, ask(13, 64))];
    keeps_every_promise(&Case { stored: 1, gone: vec![gone], ..case(world, &acts, &[13]) });
}

#[test]
fn that_a_service_builds_over_is_not_forgotten_in_the_middle_of_a_heal() {
    // Ten minutes after the variants were found to be ignored.
    let world = SimWorld { honours_disallow: false, resources: Resources::Closed, ..SimWorld::plain() };
    for late in [599_990, 600_000, 600_010, 600_020] {
        let acts = [(1_000, SimAct::EvictKeys), (2_000, ask(3, 64)), (2_000 + late, ask(5, 64))];
        keeps_every_promise(&Case { stored: 1, ..case(world.clone(), &acts, &[]) });
    }
}

#[test]
fn a_canvas_without_its_image_is_as_old_as_its_answer_however_long_the_questions_after_it_take() {
    let world = SimWorld { canvas_ms: 2_000, concurrency: 3, ahead: 8, ..SimWorld::plain() };
    let troubles = vec![
        TimedFault { fault: SimFault::ResourcesHang, from: 45_367, to: 65_367 },
        TimedFault { fault: SimFault::Nested, from: 26_640, to: 86_640 },
    ];
    let info =
        |image| SimAct::Ask { image, want: ImageWant::Info, readers: 1, patience: 200_000, cookie: true };
    let acts = [
        (45_496, SimAct::Flush),
        (45_883, info(19)),
        (45_886, ask(0, 100)),
        (45_896, info(1)),
        (45_906, ask(2, 100)),
        (52_932, SimAct::Flush),
        (55_566, ask(5, 64)),
    ];
    keeps_every_promise(&Case { troubles, ..case(world, &acts, &[]) });
}

#[test]
fn images_of_a_second_canvas_service_are_looked_for_at_their_own_image_server() {
    let world = SimWorld { two_sites: true, warm: true, resources: Resources::Closed, ..SimWorld::plain() };
    let info =
        |image| SimAct::Ask { image, want: ImageWant::Info, readers: 1, patience: 200_000, cookie: true };
    // Image 16 is of the first site, image 12 of the second one.
    for acts in [&[(53_405, info(16))][..], &[(53_405, info(16)), (70_000, info(12)), (80_000, info(0))]] {
        let fault = TimedFault { fault: SimFault::FileStore, from: 156_306, to: 156_806 };
        keeps_every_promise(&Case { troubles: vec![fault], ..case(world.clone(), acts, &everything()) });
    }
}

#[test]
fn a_node_that_waited_for_another_node_s_request_learns_what_that_one_saw_of_the_service() {
    // The canvas is stored and heals nothing, and the service builds over: only a rebuild helps.
    let world = SimWorld { honours_disallow: false, nodes: 2, ..SimWorld::plain() };
    let crowd =
        SimAct::Ask { image: 15, want: ImageWant::Tile(100), readers: 9, patience: 200_000, cookie: true };
    let acts = [(138_320, SimAct::Expire(15)), (157_041, crowd)];
    keeps_every_promise(&Case { stored: 1, ..case(world, &acts, &[]) });
}

#[test]
fn the_canvas_of_somebody_else_does_not_tell_that_the_service_builds_over() {
    let garbled = SimFault::Garbled(Garbage::OtherEmptyCanvas);
    let troubles = vec![
        TimedFault { fault: garbled, from: 302, to: 802 },
        TimedFault { fault: SimFault::Nested, from: 12_563, to: 20_563 },
    ];
    let gone = MissingPeriod { leaf: 13, from: 0, to: u64::MAX / 2 };
    let acts = [(388, ask(13, 256)), (16_799, SimAct::EvictKeys), (17_424, ask(15, 256))];
    keeps_every_promise(&Case { troubles, gone: vec![gone], ..case(SimWorld::plain(), &acts, &[]) });
}

#[test]
fn a_document_is_not_built_over_in_a_fault_of_the_file_store() {
    // The service's way to build is not known yet. The empty canvas that a viewer had built into the fault is lost while it
    // is repaired: a canvas built over it then would be the only one.
    let slow = SimWorld { canvas_ms: 10_000, ..SimWorld::plain() };
    let document = SimDocument::Canvas(5);
    let fault = TimedFault { fault: SimFault::FileStore, from: 4_996, to: 24_996 };
    let acts = |evicted| {
        let fetch = SimAct::Fetch { document, viewers: 14, patience: 200_000 };
        let evicts = [(11_089, SimAct::EvictKeys), (evicted, SimAct::EvictDocuments)];
        [(2_160, ask(5, 100)), (5_032, fetch)].into_iter().chain(evicts).collect::<Vec<_>>()
    };
    for evicted in [14_301, 15_500, 17_500, 20_000] {
        let one = case(slow.clone(), &acts(evicted), &[]);
        keeps_every_promise(&Case { troubles: vec![fault], ..one });
    }
}

#[test]
fn a_page_that_waited_for_a_quick_rebuild_of_its_file_is_not_rebuilt_too() {
    for canvas_ms in [10, 20, 40] {
        let world = SimWorld {
            honours_disallow: false,
            resources: Resources::Closed,
            canvas_ms,
            ahead: 4,
            sweep: true,
            ..SimWorld::plain()
        };
        let info =
            SimAct::Ask { image: 7, want: ImageWant::Info, readers: 1, patience: 200_000, cookie: true };
        let acts = [(13_296, SimAct::EvictKeys), (22_294, ask(13, 256)), (29_648, info)];
        keeps_every_promise(&Case { stored: 1, ..case(world, &acts, &[]) });
    }
}

#[test]
fn a_heal_that_sees_its_image_shows_which_server_has_the_images() {
    // The reader got no picture, no other image was read, and the canvas was stored empty.
    let world = SimWorld {
        honours_disallow: false,
        resources: Resources::Closed,
        two_routes: true,
        ..SimWorld::plain()
    };
    let troubles = vec![
        TimedFault { fault: SimFault::Images(503), from: 5_792, to: 25_792 },
        TimedFault { fault: SimFault::Nested, from: 15_647, to: 35_647 },
    ];
    let info = SimAct::Ask { image: 4, want: ImageWant::Info, readers: 1, patience: 200_000, cookie: true };
    let acts = [(14_575, SimAct::EvictKeys), (16_094, info)];
    keeps_every_promise(&Case { troubles, ..case(world, &acts, &[]) });
}

#[test]
fn a_repair_after_the_viewer_s_request_stores_no_document_into_a_fault() {
    // The canvas came empty, its repair waits, and the service forgets the canvas: a plain GET would store an empty one.
    let document = SimDocument::Canvas(3);
    let acts = [
        (11_611, ask(3, 100)),
        (29_713, SimAct::Fetch { document, viewers: 10, patience: 200_000 }),
        (54_800, SimAct::Flush),
    ];
    let fault = TimedFault { fault: SimFault::FileStore, from: 19_219, to: 79_219 };
    keeps_every_promise(&Case { troubles: vec![fault], ..case(SimWorld::plain(), &acts, &[]) });
}
