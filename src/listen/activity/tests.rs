use super::*;
use crate::listen::in_flight::InFlight;

const HEAD: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(75);
const PACE: Duration = Duration::from_secs(32);
const TOTAL: Duration = Duration::from_hours(1);

fn activity() -> Arc<ConnectionActivity> {
    ConnectionActivity::with(HEAD, IDLE, PACE, TOTAL, Duration::from_secs(1))
}

#[test]
fn a_connection_that_says_nothing_has_the_time_of_a_head() {
    assert_eq!(activity().deadline(), Some((HEAD, TimeoutKind::Idle)));
}

#[test]
fn a_head_that_began_has_its_own_time_and_a_request_in_flight_all_the_time_it_needs() {
    let activity = activity();
    activity.began.store(2000, Relaxed);
    assert_eq!(activity.deadline(), Some((HEAD + Duration::from_secs(2), TimeoutKind::Stuck)));
    let asked = InFlight::start(&activity, http::Version::HTTP_11, false);
    assert_eq!(activity.deadline().map(|(_, silence)| silence), Some(TimeoutKind::Late));
    drop(asked);
    let (end, silence) = activity.deadline().expect("a deadline");
    assert!(silence == TimeoutKind::Idle && end >= IDLE && end < IDLE + Duration::from_secs(1));
}

#[test]
fn only_who_rests_for_a_while_and_never_sent_a_body_is_at_leisure() {
    let activity = ConnectionActivity::of_a_test();
    assert!(!activity.can_park(), "nothing was asked");
    let asked = InFlight::start(&activity, http::Version::HTTP_11, false);
    assert!(!activity.can_park(), "in flight");
    drop(asked);
    assert!(!activity.can_park(), "only now");
    activity.rested.store(activity.now() - IDLE_AFTER_MS, Relaxed);
    assert!(activity.can_park());
    for noted in [&activity.began, &activity.blocked] {
        noted.store(1, Relaxed);
        assert!(!activity.can_park());
        noted.store(0, Relaxed);
    }
    drop(InFlight::start(&activity, http::Version::HTTP_11, true));
    activity.rested.store(1, Relaxed);
    assert!(!activity.can_park(), "some of the body may be unread");
}

#[test]
fn a_viewer_that_takes_nothing_is_stuck_even_with_a_request_in_flight() {
    let activity = activity();
    let _asked = InFlight::start(&activity, http::Version::HTTP_11, false);
    activity.record_write(None);
    activity.blocked.store(1000, Relaxed);
    activity.slow.store(1000, Relaxed);
    assert_eq!(activity.deadline(), Some((PACE + Duration::from_secs(1), TimeoutKind::Stuck)));
    let image = ConnectionActivity::with(HEAD, IDLE, Duration::MAX, TOTAL, Duration::from_secs(1));
    image.blocked.store(1000, Relaxed);
    assert_eq!(image.deadline(), Some((IDLE + Duration::from_secs(1), TimeoutKind::Stuck)));
}

#[test]
fn who_takes_a_little_now_and_then_is_too_slow_all_the_same() {
    let activity = activity();
    let _asked = InFlight::start(&activity, http::Version::HTTP_11, false);
    activity.record_write(None);
    let since = activity.slow.load(Relaxed);
    for _ in 0..3 {
        activity.record_write(Some(PIECE / 4));
        assert_eq!(activity.deadline().map(|(_, silence)| silence), Some(TimeoutKind::Late));
        activity.record_write(None);
        assert_eq!(activity.slow.load(Relaxed), since);
    }
    activity.record_write(Some(PIECE / 4));
    assert_eq!(activity.slow.load(Relaxed), 0);
}

#[test]
fn one_answer_of_many_that_is_not_taken_is_seen() {
    let activity = activity();
    let (moving, standing) = (
        InFlight::start(&activity, http::Version::HTTP_2, false),
        InFlight::start(&activity, http::Version::HTTP_2, false),
    );
    assert_eq!(activity.deadline().map(|(_, silence)| silence), Some(TimeoutKind::Late));
    moving.gives(1);
    standing.gives(1);
    moving.waits_for_us();
    assert_ne!(moving.turn.as_ref().map(|turn| turn.waits.load(Relaxed)), Some(0), "a piece is unsent");
    moving.took();
    moving.waits_for_us();
    let (end, silence) = activity.deadline().expect("a deadline");
    assert!(silence == TimeoutKind::Stuck && end >= PACE && end < PACE + Duration::from_secs(5));
    drop(standing);
    assert_eq!(activity.deadline().map(|(_, silence)| silence), Some(TimeoutKind::Late));
}

#[test]
fn who_rests_when_we_stop_may_ask_once_more_and_its_answer_says_that_it_is_the_last() {
    let activity = activity();
    let before = InFlight::start(&activity, http::Version::HTTP_11, false);
    assert!(!before.is_last());
    activity.shutdown_started();
    assert!(before.is_last());
    drop(before);
    let (end, silence) = activity.deadline().expect("a deadline");
    assert!(silence == TimeoutKind::Idle && end < Duration::from_secs(5));
    assert!(!InFlight::start(&activity, http::Version::HTTP_2, false).is_last());
}

#[test]
fn frames_between_the_requests_of_http_2_begin_no_head() {
    let activity = activity();
    drop(InFlight::start(&activity, http::Version::HTTP_2, false));
    activity.began.store(5, Relaxed);
    assert_eq!(activity.deadline().map(|(_, silence)| silence), Some(TimeoutKind::Idle));
}
