//! Evidence from answers, and the follow-ups of a heal.

use super::*;
use CanvasResponse::{Built, Carries, Lacks, Unclear};
use Rung::{Register, Variant, Visit};

/// Follow-ups of a heal, in words.
fn left(report: &HealReport) -> Vec<&'static str> {
    let word = |follow_up: &FollowUp| match follow_up {
        FollowUp::WatchCanvas { .. } => "watch",
        FollowUp::RepairCanvas { .. } => "repair",
        FollowUp::CanvasIsWhole => "whole",
    };
    report.follow_ups.iter().map(word).collect()
}

#[tokio::test(start_paused = true)]
async fn an_image_is_back_before_its_canvas_is_built_and_the_canvas_is_watched() {
    let slow = Answer {
        takes: Duration::from_secs(5),
        said: Some((Duration::from_millis(60), alive())),
        ..answer(Lacks)
    };
    let scene = Scene::new().building_beside(true).answering(Variant, [slow]);
    let began = tokio::time::Instant::now();
    let report = scene.run().await;
    assert_eq!(report.outcome, HealOutcome::Healed(Variant));
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    assert_eq!(left(&report), ["watch"]);
    let Some(FollowUp::WatchCanvas { flight, .. }) = report.follow_ups.into_iter().next() else {
        panic!("it is watched")
    };
    assert_eq!(flight.clone().wait().await, Some(Lacks));
}

#[tokio::test(start_paused = true)]
async fn a_canvas_without_its_image_is_repaired_only_where_it_may_have_been_built_over() {
    for (beside, rung, expected) in [(false, Visit, vec!["repair"]), (true, Variant, vec!["repair"])] {
        let scene = Scene::new().building_beside(beside).answering(rung, [heals(Lacks)]);
        let report = scene.run().await;
        assert_eq!(report.outcome, HealOutcome::Healed(rung));
        assert_eq!(left(&report), expected);
        let Some(FollowUp::RepairCanvas { service, request }) = report.follow_ups.first() else {
            panic!("it is to be repaired")
        };
        // The repair checks whether the stored canvas was changed at all.
        assert_eq!(service.touched(request).is_some(), !beside);
    }
}

#[tokio::test(start_paused = true)]
async fn a_canvas_that_came_with_its_image_is_whole_where_it_is_the_stored_one() {
    for (beside, rung, expected) in [(false, Visit, vec!["whole"]), (true, Variant, vec![])] {
        let scene = Scene::new().building_beside(beside).answering(rung, [heals(Carries)]);
        assert_eq!(left(&scene.run().await), expected);
    }
    let scene = Scene::new().with_file().answering(Register, [heals(Built)]);
    assert!(left(&scene.run().await).is_empty(), "nothing was built");
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_proven_a_canvas_with_the_image_is_believed_and_no_other() {
    let scenes = [(Built, true), (Carries, true), (Unclear, false), (Lacks, false)];
    for (response, is_believed) in scenes {
        let scene = Scene::new().building_beside(false).answering(Visit, [answer(response)]);
        scene.says(Registration::Nothing);
        let outcome = scene.outcome().await;
        assert_eq!(outcome == HealOutcome::Healed(Visit), is_believed, "{response:?}: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_expired_by_the_service_s_word_is_not_back_whatever_came() {
    let scene = Scene::new().building_beside(true).answering(Variant, [answer(Carries)]);
    assert_eq!(scene.outcome().await, HealOutcome::Failed);
    // Built with the image and yet "expired": the key may have been lost again. Only a probe may refute `/resources`.
    let scene = Scene::new().building_beside(true).answering(Variant, [answer(Built)]);
    assert_eq!(scene.outcome().await, HealOutcome::Failed);
    assert!(scene.service().registrations.is_available(tokio::time::Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_word_that_a_truthful_probe_refutes_is_distrusted_for_a_while() {
    let scene = Scene::new().building_beside(true).answering(Variant, [answer(Built)]);
    *scene.images.probe.lock() = Some(Evidence::Alive);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    assert!(!scene.service().registrations.is_available(tokio::time::Instant::now()));
    // A canvas that may be an old one refutes nothing.
    let scene = Scene::new().building_beside(true).answering(Variant, [answer(Carries)]);
    *scene.images.probe.lock() = Some(Evidence::Alive);
    assert_eq!(scene.outcome().await, HealOutcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_canvas_that_was_built_is_believed_without_a_look_once_the_service_said_alive_of_anything() {
    let uuid = uuid_of_file_url(FILE);
    let confirms = |scene: &Scene| {
        let now = tokio::time::Instant::now();
        let said =
            scene.service().registrations.record_response(uuid, StatusCode::OK, &FILE.to_owned().into(), now);
        assert_eq!(said, alive());
    };
    let scene = Scene::new().building_beside(true).answering(Variant, [heals(Built)]);
    scene.run().await;
    let with_look = scene.fake.registrations.load(Ordering::Relaxed);
    let scene = Scene::new().building_beside(true).answering(Variant, [heals(Built)]);
    confirms(&scene);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    assert_eq!(scene.fake.registrations.load(Ordering::Relaxed) + 1, with_look);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_written_and_lost_again_is_no_missing_file() {
    // The service requested the image, so it has found the file.
    let echoed = Answer { has_echo: true, ..answer(Lacks) };
    let scene = Scene::new().building_beside(true).answering(Variant, [echoed.clone(), heals(Built)]);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    assert_eq!(scene.rungs(), [Variant, Variant]);
    // Where it may have been a plain visit, the stored canvas may be without the image for any reason.
    let scene = Scene::new().answering(Variant, [echoed, heals(Built)]);
    scene.run().await;
    assert_eq!(scene.rungs(), [Variant]);
    let scene = Scene::new().building_beside(true).answering(Variant, [answer(Lacks), heals(Built)]);
    assert_eq!(scene.outcome().await, HealOutcome::Missing);
    assert_eq!(scene.rungs(), [Variant]);
}

#[tokio::test(start_paused = true)]
async fn a_viewer_who_came_while_the_canvas_was_built_may_have_met_a_key_that_was_lost() {
    for (after, rungs) in [(100, 2), (20, 1)] {
        let slow = Answer { takes: Duration::from_millis(200), ..answer(Lacks) };
        let scene = Scene::new().building_beside(true).answering(Variant, [slow, heals(Built)]);
        let urgency = FlightPriority::new(Priority::Viewer);
        let comes = async {
            tokio::time::sleep(Duration::from_millis(after)).await;
            urgency.add_waiter();
        };
        tokio::join!(scene.ladder.run(&scene.image, &urgency), comes);
        assert_eq!(scene.rungs().len(), rungs, "after {after} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_file_of_which_little_is_known_is_believed_for_seconds() {
    let scene = Scene::new().building_beside(true).answering(Variant, [answer(Lacks)]);
    assert_eq!(scene.outcome().await, HealOutcome::Missing);
    assert!(scene.missing.is_known(&scene.image));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(!scene.missing.is_known(&scene.image));
    // The service called it alive and the image server did not find it: with this canvas that is a proof.
    let scene = Scene::new().building_beside(true).answering(Variant, [answer(Lacks)]);
    scene.services.begin_doubt(&scene.image);
    assert_eq!(scene.outcome().await, HealOutcome::Missing);
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(scene.missing.is_known(&scene.image) && scene.missing.is_proven(&scene.image));
}

#[tokio::test(start_paused = true)]
async fn the_file_s_own_identifier_tells_a_missing_file_from_a_file_store_in_trouble() {
    let id = crate::iiif::identifier::base64_of_file_url(FILE);
    for (status, outcome) in
        [(503, HealOutcome::Failed), (200, HealOutcome::Failed), (0, HealOutcome::Missing)]
    {
        let scene = Scene::with("ladder = [\"variant\"]").with_file().building_beside(true);
        let scene = scene.answering(Variant, [answer(Lacks)]);
        scene.images.set(&id, SMALL_TILE, status);
        assert_eq!(scene.outcome().await, outcome, "{status}");
    }
    // A 404 counts where such identifiers were seen to be answered: for ten seconds at first.
    let scene = Scene::with("ladder = [\"variant\"]").with_file().building_beside(true);
    let scene = scene.answering(Variant, [answer(Lacks)]);
    scene.images.set(&id, SMALL_TILE, 200);
    assert_eq!(scene.ladder.look_at_file(&scene.image).await, Some(false));
    scene.images.set(&id, SMALL_TILE, 404);
    assert_eq!(scene.outcome().await, HealOutcome::Missing);
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(scene.missing.is_known(&scene.image));
}

#[tokio::test(start_paused = true)]
async fn a_heal_is_evidence_for_those_who_came_before_its_answer_and_a_refusal_is_none() {
    let scenes = [(CanvasResponse::Refused, false), (Unclear, true), (Lacks, true)];
    for (response, speaks) in scenes {
        let scene = Scene::new().building_beside(true).answering(Variant, [answer(response)]);
        let (urgency, came) = (FlightPriority::new(Priority::Viewer), tokio::time::Instant::now());
        scene.ladder.run(&scene.image, &urgency).await;
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(urgency.saw_nothing_since(came), !speaks, "{response:?}");
        assert!(urgency.saw_nothing_since(tokio::time::Instant::now()), "{response:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_back_is_expired_no_more_for_those_who_look_for_somebody_else() {
    let scene = Scene::new().building_beside(true).answering(Variant, [heals(Built)]);
    let sentence = format!("Resource with id {} not found!", scene.image.key);
    let now = tokio::time::Instant::now();
    scene.service().registrations.record_response(
        uuid_of_file_url(FILE),
        StatusCode::NOT_FOUND,
        &sentence.into(),
        now,
    );
    assert!(scene.services.remember_expired(&scene.image));
    scene.run().await;
    assert!(!scene.services.remember_expired(&scene.image));
}
