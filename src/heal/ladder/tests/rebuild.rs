//! Tests of rebuilds: when a canvas is built anew over the stored one.

use super::*;
use CanvasResponse::{Built, Carries, Lacks, Unclear, Unwell};
use Rung::{Rebuild, Visit};

/// Scene of a service that builds over the stored canvas. Its visit has this result, and its way to the image server is
/// well.
fn scene(visited: CanvasResponse) -> Scene {
    let scene = Scene::new().building_beside(false).answering(Visit, [answer(visited)]);
    scene.images.set(&scene.image.sent, INFO_UNCACHED, 200);
    scene.answering(Rebuild, [heals(Built)])
}

fn repairs(report: &HealReport) -> usize {
    report.follow_ups.iter().filter(|it| matches!(it, FollowUp::RepairCanvas { .. })).count()
}

#[tokio::test(start_paused = true)]
async fn a_canvas_is_built_anew_after_a_visit_that_was_answered_and_did_not_help() {
    for (visited, is_rebuilt) in [(Unclear, true), (Carries, true), (Lacks, true), (Unwell, false)] {
        let scene = scene(visited);
        let outcome = scene.outcome().await;
        assert_eq!(outcome == HealOutcome::Healed(Rebuild), is_rebuilt, "{visited:?}: {outcome:?}");
        assert_eq!(scene.rungs().contains(&Rebuild), is_rebuilt, "{visited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_was_in_vain_a_moment_ago_is_not_made_again_before_a_rebuild() {
    let scene = scene(Unclear).answering(Rebuild, [answer(Unwell), heals(Built)]);
    assert_eq!(scene.outcome().await, HealOutcome::Failed);
    assert_eq!(scene.rungs(), [Visit, Rebuild]);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Rebuild));
    assert_eq!(scene.rungs(), [Rebuild], "what the visit brought still holds");
    // The rebuild helped, so that the next expiry may begin with a visit.
    scene.says(Registration::Expired);
    scene.run().await;
    assert_eq!(scene.rungs(), [Visit, Rebuild]);
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_cools_without_a_known_answer_is_followed_by_no_rebuild() {
    let scene = scene(Unclear);
    let canvas = scene.services.asked_canvases(&scene.image)[0].1.clone();
    let visit = crate::heal::canvas_service::request::CanvasRequest::visit(&canvas).flight;
    scene.services.cooldowns.set_remaining(&visit, Duration::from_secs(9), tokio::time::Instant::now());
    assert_eq!(scene.outcome().await, HealOutcome::Cooling);
    assert!(scene.rungs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_viewer_who_does_not_find_what_a_stored_canvas_promised_has_it_built_anew() {
    let scene = scene(Unclear);
    scene.ladder.visits_were_in_vain(&scene.image);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Rebuild));
    assert_eq!(scene.rungs(), [Rebuild]);
    let scene = Scene::new().building_beside(true).answering(Rung::Variant, [heals(Built)]);
    scene.ladder.visits_were_in_vain(&scene.image);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Rung::Variant), "beside, nothing is stored");
    // No visit was made there. One is made before a rebuild, should the service turn out to build over.
    let scene = super::rebuild::scene(Unclear).building_beside(true);
    scene.ladder.visits_were_in_vain(&scene.image);
    scene.service().heard_of_variants(false);
    scene.run().await;
    assert_eq!(scene.rungs(), [Visit, Rebuild]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_built_over_while_the_image_server_is_in_trouble() {
    for (status, is_rebuilt) in
        [(503, false), (0, false), (403, false), (401, true), (302, true), (404, true), (200, true)]
    {
        let scene = scene(Unclear);
        scene.images.set(&scene.image.sent, INFO_UNCACHED, status);
        let report = scene.run().await;
        assert_eq!(scene.rungs().contains(&Rebuild), is_rebuilt, "{status}");
        assert_eq!(repairs(&report), 0, "the stored canvas lacks nothing");
        // A canvas that lacks its image is to be repaired when the service is well.
        let scene = super::rebuild::scene(Lacks);
        scene.images.set(&scene.image.sent, INFO_UNCACHED, status);
        let report = scene.run().await;
        assert_eq!((scene.rungs().contains(&Rebuild), repairs(&report)), (is_rebuilt, 1), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_built_over_while_the_breaker_is_open() {
    let scene = scene(Unclear);
    while !scene.service().breaker.record_failure(tokio::time::Instant::now()) {}
    scene.run().await;
    assert_eq!(scene.rungs(), [Visit]);
}

#[tokio::test(start_paused = true)]
async fn a_sign_of_a_fault_is_waited_for_to_pass_unless_there_is_nothing_to_lose() {
    let took = async |visited| {
        let scene = scene(visited);
        scene.service().fault_tracker.record_fault();
        let began = tokio::time::Instant::now();
        assert_eq!(scene.outcome().await, HealOutcome::Healed(Rebuild));
        began.elapsed()
    };
    assert!(took(Unclear).await >= Duration::from_secs(2));
    let goes_on = async |visited| {
        let scene = scene(visited);
        let lasts = async {
            for _ in 0..20 {
                scene.service().fault_tracker.record_fault();
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::join!(scene.run(), lasts);
        scene.rungs()
    };
    assert_eq!(goes_on(Unclear).await, [Visit]);
    assert_eq!(goes_on(Lacks).await, [Visit, Rebuild]);
}

#[tokio::test(start_paused = true)]
async fn what_is_alive_is_not_built_anew() {
    let scene = scene(Unclear);
    let alive = Answer { said: Some((Duration::ZERO, Registration::Nothing)), ..answer(Unclear) };
    let scene = scene.answering(Visit, [alive]);
    let says = async {
        tokio::time::sleep(Duration::from_millis(25)).await;
        scene.says(super::alive());
    };
    // The heal waits for the end of a fault; meanwhile the image comes back.
    scene.service().fault_tracker.record_fault();
    let (report, ()) = tokio::join!(scene.run(), says);
    assert_eq!(report.outcome, HealOutcome::Alive);
    assert_eq!(scene.rungs(), [Visit]);
    // It was expired when the heal began, and its visit of a moment ago is not made again.
    let scene = super::rebuild::scene(Unclear);
    let sentence = format!("Resource with id {} not found!", scene.image.key);
    let (uuid, now) = (uuid_of_file_url(FILE), tokio::time::Instant::now());
    scene.service().registrations.record_response(uuid, StatusCode::NOT_FOUND, &sentence.into(), now);
    scene.ladder.visits_were_in_vain(&scene.image);
    scene.says(super::alive());
    assert_eq!(scene.outcome().await, HealOutcome::Alive);
    assert!(scene.rungs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_one_canvas_that_was_built_anew_without_its_image_no_other_is_built_over() {
    let scene = scene(Unclear).owned_by(&["a", "b"]).answering(Rebuild, [answer(Lacks)]);
    assert_eq!(scene.outcome().await, HealOutcome::Missing);
    assert_eq!(scene.rungs(), [Visit, Visit, Rebuild]);
}

#[tokio::test(start_paused = true)]
async fn a_canvas_built_anew_without_its_image_is_the_end_only_where_the_service_is_well() {
    let scene = scene(Unclear).answering(Rebuild, [answer(Lacks)]);
    let report = scene.run().await;
    assert_eq!((report.outcome, repairs(&report)), (HealOutcome::Missing, 0));
    let scene = super::rebuild::scene(Unclear).answering(Rebuild, [answer(Lacks)]);
    let fails = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        scene.images.set(&scene.image.sent, INFO_UNCACHED, 503);
    };
    let (report, ()) = tokio::join!(scene.run(), fails);
    assert_eq!((report.outcome, repairs(&report)), (HealOutcome::Failed, 1));
    assert!(!scene.missing.is_known(&scene.image));
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_duplicate_may_stand_behind_a_canvas_that_was_built_anew() {
    for (visited, count) in [(Lacks, 1), (Unclear, 0)] {
        let scene = scene(visited);
        let report = scene.run().await;
        assert_eq!((report.outcome, repairs(&report)), (HealOutcome::Healed(Rebuild), count));
    }
}

#[tokio::test(start_paused = true)]
async fn a_canvas_that_came_without_the_image_is_repaired_where_the_heal_ends_at_another_canvas() {
    let scene = scene(Lacks).owned_by(&["a", "b"]).answering(Visit, [answer(Lacks), heals(Built)]);
    let report = scene.run().await;
    assert_eq!((report.outcome, repairs(&report)), (HealOutcome::Healed(Visit), 1));
    assert_eq!(scene.canvases(), ["a", "b"]);
    let scene = super::rebuild::scene(Lacks).owned_by(&["a", "b"]);
    let scene = scene.answering(Visit, [answer(Lacks), answer(CanvasResponse::Needless)]);
    let report = scene.run().await;
    assert_eq!((report.outcome, repairs(&report)), (HealOutcome::Alive, 1));
}

#[tokio::test(start_paused = true)]
async fn it_is_built_beside_as_long_as_nobody_knows_that_this_is_impossible() {
    let ladder = "ladder = [\"visit\", \"rebuild\"]";
    for (known, is_beside) in [(None, true), (Some(true), true), (Some(false), false)] {
        let mut scene = Scene::with(ladder).answering(Visit, [answer(Unclear)]);
        if let Some(honoured) = known {
            scene = scene.building_beside(honoured);
        }
        let scene = scene.answering(Rebuild, [heals(Built)]);
        scene.images.set(&scene.image.sent, INFO_UNCACHED, 200);
        assert_eq!(scene.outcome().await, HealOutcome::Healed(Rebuild));
        let (_, target) = scene.targets().pop().expect("it was asked for");
        assert_eq!(target.contains("disallow="), is_beside, "{target}");
        assert!(target.contains("update=true"), "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_alive_and_has_no_info_json_shows_that_info_json_is_broken() {
    use super::super::rebuild::ServiceHealth::{Unproven, Unwell, Well};
    let health = async |statuses: &[(&str, &str, u16)], witness_said: Option<Registration>| {
        let scene = Scene::new();
        for (id, tail, status) in statuses {
            let id = if *id == "own" { &*scene.image.sent } else { id };
            scene.images.set(id, tail, *status);
        }
        if let Some(said) = witness_said {
            let mut witness = scene.image.clone();
            (witness.key, witness.sent) = ("witness".into(), "witness".into());
            scene.services.set_known_alive(&witness);
            scene.says(said);
        }
        scene.ladder.health(scene.service(), &scene.image).await
    };
    assert_eq!(health(&[], None).await, Unproven);
    assert_eq!(health(&[("own", INFO, 200)], None).await, Well, "out of the image server's memory");
    let (good, tile) = (("witness", INFO_UNCACHED, 200), ("witness", SMALL_TILE, 200));
    assert_eq!(health(&[good], Some(Registration::Expired)).await, Well);
    assert_eq!(health(&[tile], Some(alive())).await, Unwell);
    assert_eq!(health(&[], Some(alive())).await, Unproven, "its own file is gone");
    assert_eq!(health(&[tile], Some(Registration::Expired)).await, Unproven, "it is expired, too");
    assert_eq!(health(&[("witness", INFO_UNCACHED, 0)], Some(alive())).await, Unwell);
    // An image is no witness of itself.
    let scene = Scene::new();
    scene.services.set_known_alive(&scene.image);
    scene.says(alive());
    scene.images.set(&scene.image.sent, SMALL_TILE, 401);
    assert_eq!(scene.ladder.health(scene.service(), &scene.image).await, Unproven);
    for (status, well) in [(200, true), (404, false), (503, false), (0, false)] {
        let scene = Scene::new();
        scene.images.set(&scene.image.sent, INFO_UNCACHED, status);
        assert_eq!(scene.ladder.nested_request_works(&scene.image).await, well, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_shows_that_the_service_is_well_one_finds_out_and_the_others_wait() {
    let scene = scene(Unclear);
    scene.images.set(&scene.image.sent, INFO_UNCACHED, 401);
    let other = scene.service().try_alone().expect("nobody else finds out");
    let (done, began) = (Duration::from_secs(7), tokio::time::Instant::now());
    let ends = async {
        tokio::time::sleep(done).await;
        drop(other);
    };
    let (outcome, ()) = tokio::join!(scene.outcome(), ends);
    assert_eq!(outcome, HealOutcome::Healed(Rebuild));
    assert!(began.elapsed() >= done);
    // With a proof of health there is no wait.
    let scene = super::rebuild::scene(Unclear);
    let _other = scene.service().try_alone().expect("nobody else finds out");
    let began = tokio::time::Instant::now();
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Rebuild));
    assert!(began.elapsed() < Duration::from_secs(1));
}
