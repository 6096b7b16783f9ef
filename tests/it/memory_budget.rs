//! Bodies that are held count against one sum, and nobody gets a wrong byte when it is used up.

use futures_util::future::join_all;
use testbed::{Flow, Origin};

use crate::support::edge::{Edge, route, status};
use crate::support::world::{TILE, World, patiently};

const HELD: &str = "iiif_mender_held_bytes";
const SMALL: &str = "heal.max_held = 1KiB\npresentation.max_body = 1KiB\nserver.max_held_total = 4KiB";

#[tokio::test]
async fn first_answers_beyond_the_sum_are_not_held_and_everybody_gets_the_same() {
    let small = SMALL.replace("1KiB", "8KiB").replace("4KiB", "32KiB");
    let world = World::with(&format!("heal.ahead = 0\nheal.ladder = visit\n{small}")).await;
    let path = world.bed.page().image_path(TILE);
    world.bed.expires_everything();
    world.bed.service.fails_canvas(500);
    world.bed.service.stalls_canvas();
    let original = world.asks_directly(&path).await;
    assert!((1..8192).contains(&original.body.len()), "{}", original.text());
    let asks = |_| {
        let (client, url) = (world.client.clone(), world.url(&path));
        tokio::spawn(async move { client.get(&url, &[]).await.expect("an answer") })
    };
    let waiting: Vec<_> = (0..40).map(asks).collect();
    patiently("they wait", || world.metric("iiif_mender_waiting_viewers") == 40.0).await;
    assert!(world.metric(HELD) <= 8192.0, "{}", world.metric(HELD));
    world.bed.service.releases();
    for answer in join_all(waiting).await {
        let answer = answer.expect("not aborted");
        assert_eq!((answer.status, &answer.body), (404, &original.body));
    }
    world.settles().await;
    patiently("nothing is held", || world.metric(HELD) == 0.0).await;
}

#[tokio::test]
async fn an_answer_that_was_not_held_is_asked_for_again() {
    // No answer fits: the client's quarter of the sum is taken by a document that does not end.
    let origin = Origin::start(|seen| match seen.path() {
        "/iiif-service/slow" => json(1000).stuck(900),
        "/iiif-service/quick" => json(1000).whole(),
        path if path.starts_with("/iiif-service/") => Origin::answer(500, &[], Flow::sized("")),
        _ => Origin::answer(404, &[], Flow::sized("n".repeat(500))),
    });
    let routes = [
        route("/iiif/2/", &format!("{}/iiif/2/", origin.url()), "image", ""),
        route("/iiif-service/", &format!("{}/iiif-service/", origin.url()), "presentation", ""),
    ];
    let known = crate::support::edge::manifest("a", "https://us.example/iiif-service/fedora/canvas/a", KNOWN);
    let more = format!("server.public_hosts = us.example\nheal.ladder = visit\n{SMALL}");
    let edge = Edge::knowing(&[known], &routes.concat(), &more).await;
    let mut slow = edge.viewer().await;
    slow.gets("/iiif-service/slow").await;
    patiently("it is held", || edge.metric(HELD) == 900.0).await;
    let tile = edge.get(&format!("/iiif/2/{KNOWN}/{TILE}")).await;
    assert_eq!((tile.status, tile.body.len()), (404, 500));
    assert_eq!(edge.metric(r#"iiif_mender_events_total{kind="held_refused"}"#), 1.0);
    // A document that does not fit streams by, and is whole.
    let quick = edge.get("/iiif-service/quick").await;
    assert_eq!((quick.status, quick.body), (200, json(1000).text.into()));
    assert_eq!(edge.metric(r#"iiif_mender_events_total{kind="held_refused"}"#), 2.0);
    assert_eq!(edge.metric(HELD), 900.0);
    drop(slow);
    drop(origin);
    patiently("nothing is held", || edge.metric(HELD) == 0.0).await;
}

const KNOWN: &str = "0c0d8d77-09a4-3dc5-8ab4-0fa0ee7e1bd1";

struct Json {
    text: String,
}

/// A JSON document of so many bytes.
fn json(size: usize) -> Json {
    Json { text: format!("\"{}\"", "j".repeat(size - 2)) }
}

impl Json {
    fn whole(self) -> http::Response<Flow> {
        Origin::answer(200, &[("content-type", "application/json")], Flow::chunked(self.text))
    }

    fn stuck(self, after: usize) -> http::Response<Flow> {
        Origin::answer(
            200,
            &[("content-type", "application/json")],
            Flow::chunked(self.text).stuck_after(after),
        )
    }
}

#[tokio::test]
async fn a_document_counts_until_the_last_of_its_viewers_has_it() {
    let origin = Origin::start(|_| json(1000).whole());
    let routes = route("/", &format!("{}/", origin.url()), "presentation", "");
    let edge = Edge::routed(&routes, SMALL).await;
    origin.stalls();
    let mut viewers = Vec::new();
    for _ in 0..20 {
        let mut viewer = edge.viewer().await;
        viewer.gets("/a").await;
        viewers.push(viewer);
    }
    patiently("they share", || edge.metric(r#"iiif_mender_events_total{kind="collapsed"}"#) == 19.0).await;
    origin.releases();
    for viewer in &mut viewers {
        assert_eq!(status(&viewer.head().await), 200);
        viewer.until(&json(1000).text).await;
    }
    assert_eq!(origin.seen().len(), 1);
    patiently("nothing is held", || edge.metric(HELD) == 0.0).await;
}
