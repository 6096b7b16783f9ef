//! Readers that do not read stop nobody: whoever asks beside them is served in time, and memory stays bounded.

use std::time::Duration;

use crate::support::attackers::{Attack, Attacker, BYTE, Pace};
use crate::support::fair_world::Fair;

/// Answers that fit `upstream.buffer`, and that do not. `{n}`: none is like the other.
const SMALL: &str = "/iiif/2/sized-65536-{n}/full/full/0/default.jpg";
const LARGE: &str = "/iiif/2/sized-1048576-{n}/full/full/0/default.jpg";
/// As many as an upstream gets at once by default.
const PLACES: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_http2_client_that_opens_no_window_stops_nobody() {
    let fair = Fair::start().await;
    for (what, path) in [("no window, 64 KiB", SMALL), ("no window, 1 MiB", LARGE)] {
        let mut attack = Attack::default();
        fair.attacker(0).reads_http2(&mut attack, path, PLACES, 0, Pace::Never);
        attack.has_begun(PLACES).await;
        fair.others_are_served(what, attack, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_http2_clients_that_open_no_window_stop_nobody() {
    let fair = Fair::start().await;
    let mut attack = Attack::default();
    for n in 0..50 {
        let path = if n % 2 == 0 { SMALL } else { LARGE };
        fair.attacker(n).reads_http2(&mut attack, path, 40, 0, Pace::Never);
    }
    attack.has_settled(50 * 40).await;
    fair.others_are_served("50 clients, no window", attack, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_that_open_by_one_byte_a_second_or_for_the_first_answer_only_stop_nobody() {
    let fair = Fair::start().await;
    let mut attack = Attack::default();
    fair.attacker(0).reads_http2(&mut attack, SMALL, PLACES, 1, BYTE);
    fair.attacker(1).reads_http2(&mut attack, LARGE, PLACES, 1, BYTE);
    // The window of the connection: the first answers fill it, and nobody opens it again.
    fair.attacker(2).reads_http2(&mut attack, LARGE, PLACES, 1 << 20, Pace::Never);
    attack.has_begun(3 * PLACES).await;
    fair.others_are_served("windows of a byte, a shut connection", attack, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_connections_of_one_address_that_do_not_read_stop_nobody() {
    let fair = Fair::start().await;
    for (what, path, pace) in [
        ("300 connections, 1 MiB, unread", LARGE, Pace::Never),
        ("300 connections, 64 KiB, unread", SMALL, Pace::Never),
        ("300 connections, 1 MiB, a byte a second", LARGE, BYTE),
    ] {
        let mut attack = Attack::default();
        fair.attacker(0).reads_http1(&mut attack, path, 300, pace);
        attack.has_begun(300).await;
        fair.others_are_served(what, attack, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_that_are_only_just_fast_enough_stop_nobody() {
    let fair = Fair::start().await;
    let mut attack = Attack::default();
    for n in 0..8 {
        // 2 KiB a second: the answer takes more than eight minutes.
        let pace = Pace::Each(512, Duration::from_millis(250));
        fair.attacker(n).reads_http1(&mut attack, LARGE, 40, pace);
    }
    attack.has_begun(320).await;
    fair.others_are_served("8 clients, 40 connections each, 2 KiB a second", attack, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_nobody_reads_stop_nobody() {
    let public = "[rewrite]\npublic_url = \"https://iiif.example.edu\"\n[presentation]\nmanifests = true";
    let fair = Fair::with("", public).await;
    let thick = &fair.bed.pages_of("obj/thick")[0].presentation_path;
    let mut attack = Attack::default();
    for (n, path) in [
        "/iiif-service/sized-200000-{n}",
        "/iiif-service/sized-2000000-{n}",
        // Shared, learned, repaired, rewritten.
        thick,
        // Ours: no place is needed for it.
        "/manifests/obj_thick.json",
    ]
    .iter()
    .enumerate()
    {
        fair.attacker(n).reads_http2(&mut attack, path, 100, 0, Pace::Never);
        fair.attacker(n).reads_http1(&mut attack, path, 60, Pace::Never);
    }
    attack.has_begun(4 * 160).await;
    fair.others_are_served("documents, unread", attack, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_apart_behind_a_trusted_proxy() {
    let fair = Fair::with("trusted_proxies = [\"127.0.0.1\"]", "").await;
    let mut attack = Attack::default();
    Attacker::behind_proxy("192.0.2.1", fair.proxy()).reads_http2(&mut attack, LARGE, PLACES, 0, Pace::Never);
    // One network of 64 bits is one client.
    for n in 0..PLACES {
        let client = Attacker::behind_proxy(&format!("2001:db8::{n:x}"), fair.proxy());
        client.reads_http1(&mut attack, LARGE, 1, Pace::Never);
    }
    attack.has_begun(2 * PLACES).await;
    fair.others_are_served("behind a proxy", attack, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shares_an_address_with_an_attacker_is_served_too() {
    let fair = Fair::start().await;
    let mut attack = Attack::default();
    // Two of the well-behaved have these addresses: a whole campus may stand behind one.
    for n in [1, 2] {
        let attacker = Attacker::at([127, 9, 0, n], fair.proxy());
        attacker.reads_http2(&mut attack, LARGE, 150, 0, Pace::Never);
        attacker.reads_http1(&mut attack, SMALL, 100, Pace::Never);
    }
    attack.has_begun(500).await;
    fair.others_are_served("at the same address", attack, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_that_it_is_the_canvas_service_or_we_stops_nobody() {
    let fair = Fair::start().await;
    let mut attack = Attack::default();
    let service = fair.attacker(0).saying("user-agent", "Apache-HttpClient/4.5.13 (Java/11.0.24)");
    let we = fair.attacker(1).saying("via", "1.1 iiif-mender");
    for attacker in [service, we] {
        attacker.reads_http2(&mut attack, "/iiif/2/sized-1048576-{n}/info.json", PLACES, 0, Pace::Never);
        attacker.reads_http2(&mut attack, LARGE, PLACES, 0, Pace::Never);
    }
    attack.has_begun(4 * PLACES).await;
    fair.others_are_served("false echoes", attack, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_attack_everybody_is_served() {
    Fair::start().await.others_are_served("nobody misbehaves", Attack::default(), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_fits_the_buffer_is_read_to_its_end_although_nobody_takes_it() {
    let fair = Fair::start().await;
    let mut attack = Attack::default();
    fair.attacker(0).reads_http2(&mut attack, SMALL, 40, 0, Pace::Never);
    attack.has_begun(40).await;
    // Not a connection to the upstream is held, and the answers are still here.
    let in_flight = async || fair.process.metric("iiif_mender_upstream_in_flight").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while in_flight().await != 0.0 {
        let now = in_flight().await;
        assert!(tokio::time::Instant::now() < deadline, "{now} places are held for readers that do not read");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let held = fair.process.metric("iiif_mender_held_bytes").await;
    assert!(held >= 40.0 * 60_000.0, "what waits is counted: {held}");
    drop(attack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_buffer_answers_stream_and_still_nobody_is_stopped() {
    let fair = Fair::with("", "[upstream]\nbuffer = \"0B\"").await;
    let mut attack = Attack::default();
    fair.attacker(0).reads_http2(&mut attack, SMALL, PLACES, 0, Pace::Never);
    fair.attacker(1).reads_http1(&mut attack, SMALL, PLACES, Pace::Never);
    attack.has_begun(2 * PLACES).await;
    fair.others_are_served("no buffer", attack, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_gets_a_hundred_streams() {
    let fair = Fair::start().await;
    #[allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]
    let tcp = tokio::net::TcpStream::connect(fair.proxy()).await.expect("a connection");
    let (sender, mut connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
    let mut sender = sender.ready().await.expect("a stream");
    let request = http::Request::get("http://h/plain").body(()).expect("a request");
    let (answer, _) = sender.send_request(request, true).expect("sent");
    let status = tokio::select! {
        answer = answer => answer.expect("an answer").status(),
        ended = &mut connection => panic!("{ended:?}"),
    };
    assert_eq!((status.as_u16(), connection.max_concurrent_send_streams()), (200, 100));
}
