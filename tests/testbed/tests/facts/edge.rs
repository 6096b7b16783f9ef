//! The misbehaviour of the servers themselves, the raw peer, the origin.

use std::time::Duration;

use testbed::raw::{self, Peer, Step};
use testbed::{Client, Flow, Origin, Testbed, get};

use super::{ask, image, shown};

#[tokio::test]
async fn a_server_that_is_down_refuses_and_comes_back_at_the_same_port() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    let url = format!("{}{}", testbed.images.origin(), page.thumbnail_path());
    testbed.images.goes_down().await;
    let refused = Client::default().get(&url, &[]).await.unwrap_err();
    assert!(format!("{refused:?}").contains("ConnectionRefused"), "{refused:?}");
    testbed.images.comes_up();
    assert_eq!(get(&url).await.status, 200);
}

#[tokio::test]
async fn a_server_that_hangs_takes_the_request_and_answers_when_released() {
    let testbed = Testbed::start().await;
    testbed.service.hangs();
    let url = format!("{}{}", testbed.service.origin(), testbed.page().canvas_path);
    let visit = tokio::spawn(async move { get(&url).await.status });
    testbed.ledger.until(|counts| counts.canvas == 1).await;
    assert!(!visit.is_finished());
    testbed.service.releases();
    assert_eq!(visit.await.unwrap(), 200);
}

#[tokio::test]
async fn a_server_that_resets_and_one_that_cuts_bodies_give_no_whole_answer() {
    let testbed = Testbed::start().await;
    let url = format!("{}{}", testbed.images.origin(), testbed.page().thumbnail_path());
    let client = Client::default();
    assert_eq!(client.get(&url, &[]).await.unwrap().status, 200);
    testbed.images.resets();
    assert!(client.get(&url, &[]).await.is_err());
    testbed.images.recovers();
    testbed.images.cuts_body_after(10);
    assert!(client.get(&url, &[]).await.is_err());
    testbed.images.recovers();
    assert_eq!(client.get(&url, &[]).await.unwrap().status, 200);
}

#[tokio::test]
async fn delays_are_kept_and_faults_are_answered() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    let begin = std::time::Instant::now();
    testbed.images.image_delay_of(&page.uuid, Duration::from_millis(60));
    testbed.service.canvas_delay(Duration::from_millis(60));
    assert_eq!(shown(&testbed, &page).await, 200);
    assert_eq!(ask(&testbed, &page.canvas_path).await.status, 200);
    assert!(begin.elapsed() >= Duration::from_millis(120));
    testbed.service.fails_canvas(502);
    assert_eq!(ask(&testbed, &page.canvas_path).await.status, 502);
    testbed.images.image_faults(503);
    assert_eq!(shown(&testbed, &page).await, 503);
    testbed.images.broken_json();
    assert!(image(&testbed, &page.info_path()).await.json().is_null());
}

#[tokio::test]
async fn a_raw_peer_plays_its_scripts_and_records_heads_byte_for_byte() {
    let peer = Peer::scripted(vec![
        vec![Step::ReadHead, Step::Dribble(raw::ok("slow"), Duration::from_millis(1))],
        [raw::answers(raw::half_body(100, "half")), vec![Step::Reset]].concat(),
        vec![Step::ReadHead, Step::Stall],
    ])
    .await;
    let client = Client::default();
    assert_eq!(client.get(&peer.url(), &[("x-a", "b")]).await.unwrap().text(), "slow");
    assert!(Client::default().get(&peer.url(), &[]).await.is_err());
    let url = peer.url();
    let stuck = tokio::spawn(async move { Client::default().get(&url, &[]).await.is_err() });
    let heads = peer.heads_at_least(3).await;
    assert!(heads[0].starts_with("GET / HTTP/1.1\r\n") && heads[0].contains("x-a: b\r\n"));
    peer.releases();
    assert!(stuck.await.unwrap());
    assert!(peer.connections() >= 3);
}

#[tokio::test]
async fn an_origin_answers_by_closure_and_records_raw_targets() {
    let origin = Origin::start(|seen| match seen.path() {
        "/stuck" => Origin::answer(200, &[], Flow::sized("abcdef").stuck_after(3)),
        _ => Origin::answer(207, &[("x-twice", "1"), ("x-twice", "2")], Flow::chunked(seen.target.clone())),
    });
    let answer = get(&format!("{}//a/../%7e%2F;x?q=%zz", origin.url())).await;
    assert_eq!((answer.status, answer.text()), (207, "//a/../%7e%2F;x?q=%zz".to_owned()));
    assert_eq!(answer.headers.get_all("x-twice").iter().count(), 2);
    let url = format!("{}/stuck", origin.url());
    let stuck = tokio::spawn(async move { get(&url).await });
    origin.seen_at_least(2).await;
    assert!(!stuck.is_finished());
    stuck.abort();
}

#[tokio::test]
#[should_panic(expected = "the closure broke")]
async fn a_panic_inside_a_stand_in_fails_the_test() {
    let origin = Origin::start(|_| panic!("the closure broke"));
    assert!(Client::default().get(&origin.url(), &[]).await.is_err());
}
