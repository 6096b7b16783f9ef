//! Several threads serve: what viewers share, they share across all of them.

use futures_util::future::join_all;
use testbed::Client;

use crate::support::world::World;

const TILE: &str = "0,0,512,512/512,/0/default.jpg";

const THREE: &str = "server.workers = 3\nheal.ladder = visit,rebuild\nheal.ahead = 0";

#[tokio::test]
async fn viewers_on_all_threads_share_one_canvas_request() {
    let world = World::with(THREE).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    let url = world.url(&page.image_path(TILE));
    // Each client has connections of its own, which are shared out among the threads.
    let clients: Vec<Client> = (0..12).map(|_| Client::default()).collect();
    let answers = join_all(clients.iter().map(|client| client.get(&url, &[]))).await;
    for answer in answers {
        assert_eq!(answer.expect("an answer").body, page.picture(TILE));
    }
    world.settles().await;
    let counts = world.bed.counts();
    assert_eq!((counts.canvas, counts.visits, counts.rebuilds), (1, 1, 0));
    assert_eq!(world.app.stop().await, 0, "nothing had to be cut");
}

#[tokio::test]
async fn every_thread_serves_and_is_counted() {
    let world = World::with(THREE).await;
    let page = world.bed.page();
    let url = world.url(&page.image_path(TILE));
    for _ in 0..6 {
        let answer = Client::default().get(&url, &[]).await.expect("an answer");
        assert_eq!(answer.body, page.picture(TILE));
    }
    let served = r#"iiif_mender_requests_total{route="image",outcome="served",status="2xx"}"#;
    assert_eq!(world.metric(served), 6.0);
}
