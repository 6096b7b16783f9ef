use super::*;

const HEAD: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(75);
const PACE: Duration = Duration::from_secs(32);
const TOTAL: Duration = Duration::from_hours(1);

fn pulse() -> Arc<ConnectionActivity> {
    ConnectionActivity::with(HEAD, IDLE, PACE, TOTAL, Duration::from_secs(1))
}

#[test]
fn a_connection_that_says_nothing_has_the_time_of_a_head() {
    assert_eq!(pulse().deadline(), Some((HEAD, TimeoutKind::Idle)));
}

#[test]
fn a_head_that_began_has_its_own_time_and_a_request_in_flight_all_the_time_it_needs() {
    let pulse = pulse();
    pulse.began.store(2000, Relaxed);
    assert_eq!(pulse.deadline(), Some((HEAD + Duration::from_secs(2), TimeoutKind::Stuck)));
    let asked = pulse.request_started(http::Version::HTTP_11, false);
    assert_eq!(pulse.deadline().map(|(_, silence)| silence), Some(TimeoutKind::Late));
    drop(asked);
    let (end, silence) = pulse.deadline().expect("a deadline");
    assert!(silence == TimeoutKind::Idle && end >= IDLE && end < IDLE + Duration::from_secs(1));
}

#[test]
fn only_who_rests_for_a_while_and_never_sent_a_body_is_at_leisure() {
    let pulse = ConnectionActivity::of_a_test();
    assert!(!pulse.can_park(), "nothing was asked");
    let asked = pulse.request_started(http::Version::HTTP_11, false);
    assert!(!pulse.can_park(), "in flight");
    drop(asked);
    assert!(!pulse.can_park(), "only now");
    pulse.rested.store(pulse.now() - LULL, Relaxed);
    assert!(pulse.can_park());
    for noted in [&pulse.began, &pulse.blocked] {
        noted.store(1, Relaxed);
        assert!(!pulse.can_park());
        noted.store(0, Relaxed);
    }
    drop(pulse.request_started(http::Version::HTTP_11, true));
    pulse.rested.store(1, Relaxed);
    assert!(!pulse.can_park(), "some of the body may be unread");
}

#[test]
fn a_viewer_that_takes_nothing_is_stuck_even_with_a_request_in_flight() {
    let pulse = pulse();
    let _asked = pulse.request_started(http::Version::HTTP_11, false);
    pulse.record_write(None);
    pulse.blocked.store(1000, Relaxed);
    pulse.slow.store(1000, Relaxed);
    assert_eq!(pulse.deadline(), Some((PACE + Duration::from_secs(1), TimeoutKind::Stuck)));
    let image = ConnectionActivity::with(HEAD, IDLE, Duration::MAX, TOTAL, Duration::from_secs(1));
    image.blocked.store(1000, Relaxed);
    assert_eq!(image.deadline(), Some((IDLE + Duration::from_secs(1), TimeoutKind::Stuck)));
}

#[test]
fn who_takes_a_little_now_and_then_is_too_slow_all_the_same() {
    let pulse = pulse();
    let _asked = pulse.request_started(http::Version::HTTP_11, false);
    pulse.record_write(None);
    let since = pulse.slow.load(Relaxed);
    for _ in 0..3 {
        pulse.record_write(Some(PIECE / 4));
        assert_eq!(pulse.deadline().map(|(_, silence)| silence), Some(TimeoutKind::Late));
        pulse.record_write(None);
        assert_eq!(pulse.slow.load(Relaxed), since);
    }
    pulse.record_write(Some(PIECE / 4));
    assert_eq!(pulse.slow.load(Relaxed), 0);
}

#[test]
fn one_answer_of_many_that_is_not_taken_is_seen() {
    let pulse = pulse();
    let (moving, standing) = (
        pulse.request_started(http::Version::HTTP_2, false),
        pulse.request_started(http::Version::HTTP_2, false),
    );
    assert_eq!(pulse.deadline().map(|(_, silence)| silence), Some(TimeoutKind::Late));
    moving.gives(1);
    standing.gives(1);
    moving.waits_for_us();
    assert_ne!(moving.turn.as_ref().map(|turn| turn.waits.load(Relaxed)), Some(0), "a piece is unsent");
    moving.took();
    moving.waits_for_us();
    let (end, silence) = pulse.deadline().expect("a deadline");
    assert!(silence == TimeoutKind::Stuck && end >= PACE && end < PACE + Duration::from_secs(5));
    drop(standing);
    assert_eq!(pulse.deadline().map(|(_, silence)| silence), Some(TimeoutKind::Late));
}

#[test]
fn who_rests_when_we_stop_may_ask_once_more_and_its_answer_says_that_it_is_the_last() {
    let pulse = pulse();
    let before = pulse.request_started(http::Version::HTTP_11, false);
    assert!(!before.is_last());
    pulse.shutdown_started();
    assert!(before.is_last());
    drop(before);
    let (end, silence) = pulse.deadline().expect("a deadline");
    assert!(silence == TimeoutKind::Idle && end < Duration::from_secs(5));
    assert!(!pulse.request_started(http::Version::HTTP_2, false).is_last());
}

#[test]
fn frames_between_the_requests_of_http_2_begin_no_head() {
    let pulse = pulse();
    drop(pulse.request_started(http::Version::HTTP_2, false));
    pulse.began.store(5, Relaxed);
    assert_eq!(pulse.deadline().map(|(_, silence)| silence), Some(TimeoutKind::Idle));
}
