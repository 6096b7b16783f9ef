//! Cases that the simulation found, made small, each with the name of what went wrong.

use super::case::{Act, At, Case, Fault, Gone, Resources, Trouble, Want, World};
use super::library::Library;
use super::run::play;

/// A quiet world in which this happens; these images are read at the end.
fn case(world: World, acts: &[(u64, Act)], last: &[usize]) -> Case {
    let acts = acts.iter().map(|(ms, act)| At { ms: *ms, act: *act }).collect();
    Case { world, stored: 0, troubles: Vec::new(), gone: Vec::new(), acts, last: last.to_vec() }
}

fn everything() -> Vec<usize> {
    (0..Library::get().images.len()).collect()
}

fn ask(image: usize, width: u32) -> Act {
    Act::Ask { image, want: Want::Tile(width), readers: 1, patience: 200_000, cookie: true }
}

#[track_caller]
fn keeps_every_promise(case: &Case) {
    // tokio draws whom it wakes first: once more may go otherwise.
    for _ in 0..5 {
        let (broken, log) = play(case, true);
        assert!(broken.is_empty(), "{}\n{}", log.join("\n"), broken.join("\n"));
    }
}

#[test]
fn a_key_that_is_lost_while_its_canvas_is_still_being_built_is_brought_back_once_more() {
    let slow = World { canvas_ms: 2_000, ..World::plain() };
    // The picture (leaf 17 is image 19) is back after half a second, its canvas is built after two.
    let acts =
        [(1_000, Act::EvictKeys), (1_100, ask(19, 64)), (2_200, Act::Expire(17)), (2_300, ask(19, 65))];
    keeps_every_promise(&case(slow.clone(), &acts, &[]));
    keeps_every_promise(&case(slow, &[(1_000, Act::EvictKeys)], &everything()));
}

#[test]
fn a_mass_expiry_heals_nothing_that_was_healed_a_moment_before() {
    for canvas_ms in [20, 100] {
        keeps_every_promise(&case(World { canvas_ms, ..World::plain() }, &[], &everything()));
    }
}

#[test]
fn while_one_request_tries_a_service_that_is_back_nobody_is_told_that_his_image_cools_down() {
    let asked = (0..8).map(|image| (11_000 + 400 * image as u64, ask(image, 64)));
    let mut acts = vec![(10_000, Act::Flush)];
    acts.extend(asked);
    let busy = Trouble { fault: Fault::Busy(7), from: 10_000, to: 60_000 };
    keeps_every_promise(&Case { troubles: vec![busy], ..case(World::plain(), &acts, &everything()) });
}

#[test]
fn a_429_to_the_viewer_s_own_request_is_no_healed_image() {
    let slow = World { canvas_ms: 10_000, key_early: false, ..World::plain() };
    let fault = Trouble { fault: Fault::Images(429), from: 9_000, to: 20_000 };
    let acts = [(1_000, Act::Flush), (2_000, ask(10, 64))];
    keeps_every_promise(&Case { troubles: vec![fault], ..case(slow, &acts, &[10]) });
}

#[test]
fn an_info_json_in_trouble_that_is_404_makes_no_file_missing() {
    let world = World { resources: Resources::Gateway, ..World::plain() };
    let fault = Trouble { fault: Fault::Info(404), from: 5_000, to: 20_000 };
    let acts = [(6_000, Act::Flush), (8_000, ask(5, 64))];
    keeps_every_promise(&Case { troubles: vec![fault], ..case(world, &acts, &[5]) });
}

#[test]
fn batch_does_not_believe_a_registration_of_a_file_that_is_gone() {
    let world = World { files_known: true, ..World::plain() };
    let gone = Gone { leaf: 5, from: 0, to: u64::MAX / 2 };
    let acts = [(1_000, Act::Flush), (2_000, Act::Mend(5))];
    keeps_every_promise(&Case { gone: vec![gone], ..case(world, &acts, &[]) });
}

#[test]
fn before_anybody_has_shown_which_server_has_the_images_no_other_is_asked_and_nothing_is_built() {
    let world = World { two_routes: true, resources: Resources::Closed, ahead: 4, ..World::plain() };
    keeps_every_promise(&case(world, &[(1_000, Act::Opened(0)), (5_000, ask(0, 64))], &everything()));
}

#[test]
fn an_info_json_that_is_refused_after_the_heal_is_not_called_healed() {
    let slow = World { canvas_ms: 10_000, ..World::plain() };
    let fault = Trouble { fault: Fault::Info(403), from: 2_500, to: 20_000 };
    let info = Act::Ask { image: 12, want: Want::Info, readers: 1, patience: 200_000, cookie: true };
    keeps_every_promise(&Case {
        troubles: vec![fault],
        ..case(slow, &[(1_000, Act::Flush), (2_000, info)], &[12])
    });
}
