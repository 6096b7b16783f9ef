//! Uploads that do not move, and requests that are taken back, stop nobody either.
#![allow(clippy::print_stdout, reason = "figures, for those who ask with --nocapture")]

use std::time::Duration;

use rstest::rstest;

use crate::support::attackers::{Attack, BYTE, KINDS, Length, Pace, nth};
use crate::support::fair_world::Fair;

const SMALL: &str = "/iiif/2/sized-1000-{n}/full/full/0/default.jpg";
const SERVICE: &str = "/iiif-service/upload/{n}";
const PLAIN: &str = "/plain/upload/{n}";
/// A byte each 20 seconds: no test waits for the second one.
const RARE: Pace = Pace::Each(1, Duration::from_secs(20));
const TOLD: Length = Length::Told(5000);

#[rstest]
#[case::http2_to_documents(true, SERVICE, TOLD, RARE)]
#[case::http2_untold_to_plain(true, PLAIN, Length::Untold, BYTE)]
#[case::http1_to_documents(false, SERVICE, TOLD, RARE)]
#[case::http1_chunks_to_plain(false, PLAIN, Length::Untold, BYTE)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_one_client_that_do_not_move_stop_nobody(
    #[case] http2: bool,
    #[case] path: &str,
    #[case] length: Length,
    #[case] pace: Pace,
) {
    let fair = Fair::start().await;
    let mut attack = Attack::default();
    if http2 {
        fair.attacker(0).sends_http2(&mut attack, path, 256, length, pace);
    } else {
        fair.attacker(0).sends_http1(&mut attack, path, 300, length, pace);
    }
    attack.has_begun(250).await;
    fair.others_are_served(&format!("uploads to {path}, {length:?}"), attack, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_kind_of_route_does_not_starve_the_others_of_the_same_host() {
    let fair = Fair::start().await;
    for path in ["/iiif/2/upload-{n}/full/full/0/default.jpg", SERVICE, PLAIN] {
        let mut attack = Attack::default();
        // Far more than there are places, by clients that each have few.
        for n in 0..10 {
            fair.attacker(n).sends_http2(&mut attack, path, 64, TOLD, BYTE);
        }
        attack.has_begun(600).await;
        fair.others_are_served(&format!("10 clients' uploads to {path}"), attack, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_requests_back_or_leaves_costs_no_dials() {
    let fair = Fair::start().await;
    for (http2, stay) in [(true, 0), (true, 1), (false, 1)] {
        let stay = Duration::from_millis(stay);
        let (before, mut attack) = (fair.gateway.connections(), Attack::default());
        if http2 {
            fair.attacker(0).resets(&mut attack, SMALL, stay);
        } else {
            fair.attacker(0).leaves(&mut attack, SMALL, 20, stay);
        }
        attack.has_begun(500).await;
        let what = format!("{} after {stay:?}", if http2 { "resets" } else { "who leaves" });
        fair.others_are_served(&what, attack, 1).await;
        let dials = fair.gateway.connections() - before;
        println!("{what}: {dials} dials");
        // A connection on which an answer is awaited must close when its viewer leaves, so some are dialled anew.
        assert!(dials <= 2 * 256, "{what}: {dials} dials");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_at_once_stop_nobody() {
    let fair = Fair::start().await;
    let large = "/iiif/2/sized-1048576-{n}/full/full/0/default.jpg";
    let kinds = (0..KINDS).map(|kind| nth(kind, fair.proxy(), ["/sized-65536-{n}", large, SERVICE]).1);
    let attacks: Vec<_> = kinds.collect();
    attacks[0].has_begun(300).await;
    let mut all = Attack::default();
    for attack in attacks {
        all.takes_in(attack);
    }
    fair.others_are_served("all kinds", all, 4).await;
}
