//! Ten thousand viewers of one expired page.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use testbed::Testbed;

use crate::support::world::World;

const CONNECTIONS: usize = 40;
const STREAMS: usize = 250;

async fn connected(world: &World) -> SendRequest<Empty<Bytes>> {
    #[allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]
    let stream = tokio::net::TcpStream::connect(world.app.addresses[0]).await.expect("a connection");
    let (sender, driver) =
        Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(driver);
    sender
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_viewers_of_one_expired_page_cost_one_canvas_request() {
    let bed = Testbed::builder().book("obj/crowd", 1).page_size(64, 64).start().await;
    let more = "heal.ladder = visit\nheal.ahead = 0\nheal.wait = 100s\nheal.max_waiting = 4000\n\
                upstream.queue_wait = 100s\nserver.max_connections_per_address = 0";
    let world = World::over(bed, more).await;
    world.bed.expires_everything();
    world.bed.service.canvas_delay(Duration::from_secs(2));
    let path = world.bed.page().image_path("full/64,/0/default.jpg");
    let picture = {
        let origin = format!("{}{path}", world.bed.images.origin());
        world.bed.registers_everything();
        let picture = world.client.get(&origin, &[]).await.expect("an answer").body;
        world.bed.expires_everything();
        picture
    };
    let mut viewers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let sender = connected(&world).await;
        for _ in 0..STREAMS {
            let (mut sender, uri) = (sender.clone(), world.url(&path));
            viewers.spawn(async move {
                let request = hyper::Request::get(uri).body(Empty::new()).expect("a request");
                let answer = sender.send_request(request).await.expect("an answer");
                let (head, body) = answer.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                (head.status.as_u16(), head.headers.contains_key("retry-after"), body)
            });
        }
    }
    let mut told = BTreeMap::<u16, usize>::new();
    while let Some(answered) = viewers.join_next().await {
        let (status, comes_back, body) = answered.expect("no viewer is cut off");
        match status {
            200 => assert!(body == picture, "the picture, and no other"),
            503 => assert!(comes_back, "a 503 says when to come back"),
            other => panic!("{other}"),
        }
        *told.entry(status).or_default() += 1;
    }
    assert_eq!(told.values().sum::<usize>(), CONNECTIONS * STREAMS);
    assert!(told[&200] >= 4000, "who may wait is served: {told:?}");
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1, "{told:?}");
    for gauge in ["iiif_mender_waiting_viewers", "iiif_mender_flights", "iiif_mender_held_bytes"] {
        assert!(world.metric(gauge).abs() < f64::EPSILON, "{gauge}");
    }
}
