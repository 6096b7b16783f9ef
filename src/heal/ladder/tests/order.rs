//! Order of rungs and canvases, and cool-downs.

use super::*;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::shared_heals::Freshness;
use crate::heal::canvas_service::variants::built_anew;

use CanvasResponse::{Built, Busy, Carries, Lacks, Needless, Refused, Unclear, Unwell, Withheld};
use Rung::{Rebuild, Register, Variant, Visit};

#[tokio::test(start_paused = true)]
async fn what_is_alive_is_left_alone() {
    let scene = Scene::new();
    scene.says(alive());
    assert_eq!(scene.outcome().await, HealOutcome::Alive);
    assert!(scene.rungs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_service_called_expired_a_moment_ago_is_not_asked_for_again() {
    let scene = Scene::new().answering(Variant, [answer(Refused)]);
    let sentence = format!("Resource with id {} not found!", scene.image.key);
    let uuid = uuid_of_file_url(FILE);
    let heard = |scene: &Scene| {
        scene.service().registrations.record_response(
            uuid,
            StatusCode::NOT_FOUND,
            &sentence.clone().into(),
            tokio::time::Instant::now(),
        )
    };
    assert_eq!(heard(&scene), Registration::Expired);
    // The service's answer may change now: the heal began because of the one before.
    scene.says(alive());
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    tokio::time::advance(Duration::from_secs(1)).await;
    scene.rungs();
    assert_eq!(scene.outcome().await, HealOutcome::Alive);
    assert!(scene.rungs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_file_s_own_identifier_that_is_404_is_a_missing_file() {
    let mut scene = Scene::new();
    let id = crate::iiif::identifier::base64_of_file_url(FILE);
    scene.image.kind = Identifier::new(&id).kind();
    (scene.image.key, scene.image.sent) = (id.as_str().into(), id.as_str().into());
    assert_eq!(scene.outcome().await, HealOutcome::Missing);
    assert!(scene.rungs().is_empty() && scene.missing.is_known(&scene.image));
}

#[tokio::test(start_paused = true)]
async fn the_rungs_are_tried_in_their_order_until_one_helps() {
    let scene = Scene::new().with_file().building_beside(false);
    assert_eq!(scene.outcome().await, HealOutcome::Failed);
    // A service that refuses to build a canvas also refuses to build it anew.
    assert_eq!(scene.rungs(), [Register, Visit]);
    let scene = Scene::new().with_file().building_beside(false).answering(Visit, [answer(Unclear)]);
    let scene = scene.answering(Rebuild, [heals(Built)]);
    scene.images.set(&scene.image.sent, INFO_UNCACHED, 200);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Rebuild));
    assert_eq!(scene.rungs(), [Register, Visit, Rebuild]);
    let scene = Scene::new().with_file().answering(Register, [heals(Built)]);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Register));
    assert_eq!(scene.rungs(), [Register]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_built_over_where_it_can_be_built_beside_or_that_is_not_known() {
    for scene in [Scene::new().building_beside(true), Scene::new()] {
        let scene = scene.answering(Variant, [answer(Unclear)]).answering(Visit, [heals(Built)]);
        assert_eq!(scene.outcome().await, HealOutcome::Failed);
        assert_eq!(scene.rungs(), [Variant], "the file is not known: nothing can be registered either");
    }
    let scene = Scene::new().building_beside(false).answering(Visit, [heals(Carries)]);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Visit));
    assert_eq!(scene.rungs(), [Visit]);
}

#[tokio::test(start_paused = true)]
async fn a_variant_that_turns_out_to_be_a_plain_visit_is_the_visit() {
    for (first, rungs) in [(Unclear, vec![Variant, Rebuild]), (Refused, vec![Variant])] {
        let scene = Scene::new().answering(Variant, [answer(first)]).answering(Rebuild, [heals(Built)]);
        scene.images.set(&scene.image.sent, INFO_UNCACHED, 200);
        let learns = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            scene.service().heard_of_variants(false);
        };
        tokio::join!(scene.run(), learns);
        assert_eq!(scene.rungs(), rungs, "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn canvases_are_asked_for_newest_first_each_once_and_never_those_of_strangers() {
    let mut scene = Scene::new().building_beside(true).owned_by(&["new", "old", "new", "oldest"]);
    let owners = std::iter::once(owner("elsewhere.example", "stray")).chain(scene.image.owners.to_vec());
    scene.image.owners = owners.collect();
    assert_eq!(scene.services.asked_canvases(&scene.image).len(), 3);
    let scene = scene.answering(Variant, [answer(Refused), answer(Refused), heals(Built)]);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    assert_eq!(scene.canvases(), ["new", "old", "oldest"]);
}

#[tokio::test(start_paused = true)]
async fn canvases_that_are_refused_do_not_count_and_of_others_three_are_asked_for() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let scene = Scene::new().building_beside(true).owned_by(&names);
    let mut answers = vec![answer(Refused); 5];
    answers.push(heals(Built));
    let scene = scene.answering(Variant, answers);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    assert_eq!(scene.canvases().len(), 6);
    let scene = Scene::new().building_beside(true).owned_by(&names).answering(Variant, [answer(Unclear)]);
    assert_eq!(scene.outcome().await, HealOutcome::Failed);
    assert_eq!(scene.canvases(), ["a", "b", "c"]);
    // Canvases that come without the image count, too.
    let scene = Scene::new().building_beside(true).owned_by(&names).answering(Variant, [answer(Lacks)]);
    assert_eq!(scene.outcome().await, HealOutcome::Missing);
    assert_eq!(scene.canvases(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_canvas_that_lacks_the_image_is_not_the_end_while_another_may_own_it() {
    let scene = Scene::new().building_beside(true).owned_by(&["old", "right"]);
    let scene = scene.answering(Variant, [answer(Lacks), heals(Built)]);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    assert!(!scene.missing.is_known(&scene.image));
}

#[tokio::test(start_paused = true)]
async fn what_did_not_help_cools_down_and_is_tried_again_after_a_while() {
    let scene = Scene::new().building_beside(true).answering(Variant, [answer(Unclear)]);
    assert_eq!(scene.outcome().await, HealOutcome::Failed);
    assert_eq!(scene.rungs().len(), 1);
    assert_eq!(scene.outcome().await, HealOutcome::Cooling);
    assert!(scene.rungs().is_empty());
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(scene.outcome().await, HealOutcome::Failed);
    assert_eq!(scene.rungs().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_speaks_against_the_service_cools_no_canvas() {
    for response in [Busy, Unwell] {
        let scene = Scene::new().building_beside(true).answering(Variant, [answer(response), heals(Built)]);
        assert_eq!(scene.outcome().await, HealOutcome::Failed, "{response:?}");
        assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant), "{response:?}");
    }
    let scene = Scene::new().building_beside(true).answering(Variant, [answer(Withheld), heals(Built)]);
    assert_eq!(scene.outcome().await, HealOutcome::Cooling);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    let scene = Scene::new().building_beside(true).answering(Variant, [answer(Needless)]);
    assert_eq!(scene.outcome().await, HealOutcome::Alive);
}

#[tokio::test(start_paused = true)]
async fn a_canvas_that_cools_does_not_keep_another_from_being_asked_for() {
    let scene = Scene::new().building_beside(true).owned_by(&["cools", "other"]);
    let scene = scene.answering(Variant, [answer(Refused), answer(Refused), heals(Built)]);
    assert_eq!(scene.outcome().await, HealOutcome::Failed);
    scene.canvases();
    let other = scene.services.asked_canvases(&scene.image)[1].1.clone();
    let other = CanvasRequest::variant(&other).expect("it can be built beside").flight;
    scene.services.clear_cooldown(scene.service(), &other);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    assert_eq!(scene.canvases(), ["other"]);
}

#[tokio::test(start_paused = true)]
async fn canvases_for_which_the_service_failed_come_behind_the_others() {
    let scene = Scene::new().building_beside(true).owned_by(&["a", "b", "c", "d"]);
    let scene = scene.answering(Variant, [heals(Built)]);
    for (service, canvas) in &scene.services.asked_canvases(&scene.image)[..3] {
        let variant = CanvasRequest::variant(canvas).expect("it can be built beside").flight;
        let unavailable = http::StatusCode::SERVICE_UNAVAILABLE;
        service.failures.record_answer(&built_anew(&variant.target), unavailable, &http::HeaderMap::new());
    }
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    assert_eq!(scene.canvases(), ["d"]);
}

#[tokio::test(start_paused = true)]
async fn canvases_that_were_in_vain_come_behind_those_that_were_never_asked_for() {
    let names = ["a", "b", "c", "d", "e"];
    let scene = Scene::new().building_beside(true).owned_by(&names);
    let mut answers = vec![answer(Unclear); 8];
    answers.push(heals(Built));
    let scene = scene.answering(Variant, answers);
    let (failed, healed) = (HealOutcome::Failed, HealOutcome::Healed(Variant));
    for (asked, outcome) in [(["a", "b", "c"], failed), (["d", "e", "a"], failed), (["b", "c", "d"], healed)]
    {
        assert_eq!(scene.outcome().await, outcome);
        assert_eq!(scene.canvases(), asked);
        // Nothing of that cools any more.
        tokio::time::advance(Duration::from_hours(1)).await;
    }
    assert_eq!(scene.outcome().await, HealOutcome::Alive);
}

/// Begins this request for another heal.
fn begun(scene: &Scene, request: &CanvasRequest) -> FlightHandle<CanvasResponse> {
    let order = CanvasOrder {
        service: scene.service(),
        request: &request.flight,
        image: &scene.image,
        urgency: &FlightPriority::new(Priority::Viewer),
        wanted: Freshness::OrLanded,
    };
    Arc::clone(&scene.fake).request(&order).0
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_under_way_and_did_not_help_is_sent_once_more() {
    let scene = Scene::new().building_beside(true).answering(Variant, [answer(Unclear), heals(Built)]);
    let canvas = scene.services.asked_canvases(&scene.image)[0].1.clone();
    let _seat = begun(&scene, &CanvasRequest::variant(&canvas).expect("it can be built beside"));
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    assert_eq!(scene.rungs(), [Variant, Variant]);
    // A stored canvas stays as it is: only a visit that was refused is made again.
    for (first, rungs) in [(Unclear, vec![Visit]), (Refused, vec![Visit, Visit]), (Busy, vec![Visit])] {
        let scene = Scene::with("ladder = [\"visit\"]").answering(Visit, [answer(first), answer(Refused)]);
        let canvas = scene.services.asked_canvases(&scene.image)[0].1.clone();
        let _seat = begun(&scene, &CanvasRequest::visit(&canvas));
        assert_eq!(scene.outcome().await, HealOutcome::Failed);
        assert_eq!(scene.rungs(), rungs, "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_not_built_into_a_fault() {
    let scene = Scene::new().building_beside(false).answering(Visit, [heals(Carries)]);
    scene.service().fault_tracker.record_fault();
    let began = tokio::time::Instant::now();
    assert_eq!(scene.run_for(Priority::Background).await.outcome, HealOutcome::Healed(Visit));
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    // A viewer does not wait for the end of a fault, and no lane does where the canvas is built beside.
    for (beside, priority) in [(false, Priority::Viewer), (true, Priority::Background)] {
        let scene = Scene::new().building_beside(beside).answering(Visit, [heals(Carries)]);
        let scene = scene.answering(Variant, [heals(Carries)]);
        scene.service().fault_tracker.record_fault();
        let began = tokio::time::Instant::now();
        scene.run_for(priority).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{priority:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_goes_on_is_waited_for_but_not_for_ever() {
    let scene = Scene::with("backoff_max = \"10s\"").building_beside(false);
    scene.service().fault_tracker.record_fault();
    let lasts = async {
        for _ in 0..60 {
            scene.service().fault_tracker.record_fault();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let began = tokio::time::Instant::now();
    let heal = async {
        let outcome = scene.run_for(Priority::Background).await.outcome;
        (outcome, began.elapsed())
    };
    let ((outcome, took), ()) = tokio::join!(heal, lasts);
    assert_eq!(outcome, HealOutcome::Cooling);
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(11), "{took:?}");
    assert!(scene.rungs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_lets_another_find_out_whether_a_service_builds_beside() {
    let waits = async |scene: &Scene| {
        let began = tokio::time::Instant::now();
        scene.run_for(Priority::Background).await;
        began.elapsed()
    };
    let scene = Scene::new().answering(Variant, [answer(Unclear)]);
    assert!(waits(&scene).await < Duration::from_millis(100), "nobody else asks");
    let slow = Answer { takes: Duration::from_secs(5), ..answer(Unclear) };
    let scene = Scene::new().answering(Variant, [answer(Unclear)]).answering(Rebuild, [slow]);
    let canvas = scene.services.asked_canvases(&scene.image)[0].1.clone();
    let _seat = begun(&scene, &CanvasRequest::rebuild(&canvas));
    let long = waits(&scene).await;
    assert!(long >= Duration::from_millis(300) && long < Duration::from_millis(700), "{long:?}");
}

#[tokio::test(start_paused = true)]
async fn the_file_is_registered_once_however_many_canvases_there_are_also_where_none_may_be_asked_for() {
    let scene = Scene::new().with_file().building_beside(true).owned_by(&["a", "b"]);
    let scene = scene.answering(Register, [answer(Unwell)]).answering(Variant, [answer(Refused)]);
    assert_eq!(scene.outcome().await, HealOutcome::Failed);
    assert_eq!(scene.rungs(), [Register, Variant, Variant]);
    let mut scene = Scene::new().with_file().answering(Register, [heals(Built)]);
    scene.image.owners = Arc::new([owner("elsewhere.example", "stray")]);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Register));
}

#[tokio::test(start_paused = true)]
async fn an_image_in_doubt_is_registered_only_where_no_canvas_is_built_beside() {
    // Register writes a key whether the file is there or not, and would show nothing.
    for (beside, is_doubted, first) in
        [(true, true, Variant), (true, false, Register), (false, true, Register), (false, false, Register)]
    {
        let scene = Scene::new().with_file().building_beside(beside);
        if is_doubted {
            scene.services.begin_doubt(&scene.image);
        }
        scene.run().await;
        assert_eq!(scene.rungs()[0], first, "beside: {beside}, in doubt: {is_doubted}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_and_met_a_fault_in_the_queue_waits_once_more() {
    let scene = Scene::new().building_beside(false).answering(Visit, [answer(Withheld), heals(Carries)]);
    let began = tokio::time::Instant::now();
    let fails = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        scene.service().fault_tracker.record_fault();
    };
    let (report, ()) = tokio::join!(scene.run_for(Priority::Background), fails);
    assert_eq!(report.outcome, HealOutcome::Healed(Visit));
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nobody_probes_for_an_image_whose_request_still_waits_for_a_permit() {
    let queued = Answer { queued: Duration::from_secs(20), ..heals(Built) };
    let scene = Scene::new().building_beside(true).answering(Variant, [queued]);
    assert_eq!(scene.outcome().await, HealOutcome::Healed(Variant));
    let looks = scene.fake.registrations.load(Ordering::Relaxed);
    assert!(looks <= 2, "{looks}");
}

#[tokio::test(start_paused = true)]
async fn a_stored_canvas_that_promised_the_image_in_vain_is_not_visited_again_for_half_a_minute() {
    for (beside, rung, response, cools) in
        [(false, Visit, Carries, true), (false, Visit, Unclear, false), (true, Variant, Carries, false)]
    {
        let scene = Scene::with("ladder = [\"variant\", \"visit\"]").building_beside(beside);
        let scene = scene.answering(rung, [answer(response)]);
        assert_eq!(scene.outcome().await, HealOutcome::Failed);
        for (after, cools) in [(29, cools), (3, false)] {
            tokio::time::advance(Duration::from_secs(after)).await;
            scene.rungs();
            let outcome = if cools { HealOutcome::Cooling } else { HealOutcome::Failed };
            assert_eq!(scene.outcome().await, outcome, "{rung:?} {response:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_helps_again_and_again_within_seconds_cools_down() {
    let scene = Scene::new().building_beside(false).answering(Visit, [heals(Carries)]);
    for _ in 0..5 {
        scene.says(Registration::Expired);
        assert_eq!(scene.outcome().await, HealOutcome::Healed(Visit));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    scene.says(Registration::Expired);
    assert_eq!(scene.outcome().await, HealOutcome::Cooling);
}

#[tokio::test(start_paused = true)]
async fn a_canvas_that_is_refused_while_others_are_built_cools_longer_each_time() {
    for (response, longer) in [(Refused, true), (Unclear, false)] {
        let scene = Scene::new().building_beside(true).answering(Variant, [answer(response)]);
        scene.run().await;
        tokio::time::advance(Duration::from_secs(3)).await;
        scene.service().fault_tracker.builds();
        scene.run().await;
        let canvas = scene.services.asked_canvases(&scene.image)[0].1.clone();
        let request = CanvasRequest::variant(&canvas).expect("it can be built beside").flight;
        let left = scene.services.cooldowns.remaining(&request, None, tokio::time::Instant::now());
        assert_eq!(left > Some(Duration::from_millis(1_500)), longer, "{response:?}: {left:?}");
    }
}
