//! Clients that keep connections open stop nobody when all places are taken: who comes with one gets one.

use crate::support::attackers::{Attack, BYTE, Pace};
use crate::support::fair_world::Fair;

const LARGE: &str = "/iiif/2/sized-1048576-{n}/full/full/0/default.jpg";
/// Far fewer than the attackers want.
const FEW: &str = "max_connections = 150";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_or_half_a_head_or_rest_stop_nobody() {
    let fair = Fair::with(FEW, "").await;
    for (what, first) in [
        ("silent", ""),
        ("half a head", "GET / HTTP/1.1\r\nHost:"),
        ("at rest", "GET /plain/x HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("HTTP/2 at rest", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ] {
        let mut attack = Attack::default();
        for n in 0..6 {
            fair.attacker(n).stays(&mut attack, 100, first);
        }
        attack.has_begun(300).await;
        fair.others_are_served(what, attack, 1).await;
    }
    assert!(fair.process.metric("iiif_mender_connections_cut_total{kind=\"evicted\"}").await > 300.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_do_not_read_stop_nobody_who_comes_later() {
    let fair = Fair::with(FEW, "").await;
    for (what, pace) in [("unread", Pace::Never), ("a byte a second", BYTE)] {
        let mut attack = Attack::default();
        for n in 0..6 {
            fair.attacker(n).reads_http1(&mut attack, LARGE, 100, pace);
        }
        attack.has_begun(300).await;
        fair.others_are_served(what, attack, 4).await;
    }
}
