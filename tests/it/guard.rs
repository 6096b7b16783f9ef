//! A canvas URL in a manifest is a name, never an address to call.

use testbed::{Flow, Origin};

use crate::support::edge::{Edge, manifest, route};
use crate::support::world::patiently;

/// Images that are all gone, a canvas service, and a stranger who must never be called.
struct Reach {
    images: Origin,
    service: Origin,
    stranger: Origin,
}

impl Reach {
    fn start() -> Self {
        Self {
            images: Origin::fixed(404, "gone"),
            service: Origin::fixed(500, "no canvas"),
            stranger: Origin::fixed(200, "never called"),
        }
    }

    /// An edge that knows one image, whose canvas is said to be `canvas`.
    async fn edge(&self, canvas: &str) -> Edge {
        let routes = [
            route("/iiif/2/", &format!("{}/iiif/2/", self.images.url()), "image", ""),
            route("/iiif-service/", &format!("{}/inner/", self.service.url()), "presentation", ""),
            route("/iiif-service/private/", &format!("{}/private/", self.stranger.url()), "plain", ""),
            route("/", &format!("{}/", self.stranger.url()), "plain", ""),
        ];
        let more = "server.public_hosts = us.example,us.example:8443\nheal.ladder = visit,rebuild\nheal.wait = 5s\nheal.breaker_failures = 1000";
        Edge::knowing(&[manifest("a", canvas, KNOWN)], &routes.concat(), more).await
    }

    /// What the canvas service was asked for, but for "is it alive?".
    fn canvases(&self) -> Vec<String> {
        let seen = self.service.seen().into_iter().map(|seen| seen.target);
        seen.filter(|target| !target.starts_with("/inner/resources/")).collect()
    }
}

const KNOWN: &str = "88c02c4f-cb78-3d8d-a4a5-2463f29a6565";
const TILE: &str = "/iiif/2/88c02c4f-cb78-3d8d-a4a5-2463f29a6565/full/full/0/default.jpg";

/// Asks for the image; everything that this starts has ended afterwards.
async fn asks(edge: &Edge) {
    assert_eq!(edge.get(TILE).await.text(), "gone");
    patiently("nothing is in flight", || {
        ["flights", "canvas_in_flight", "upstream_in_flight"]
            .iter()
            .all(|gauge| edge.metric(&format!("iiif_mender_{gauge}")) == 0.0)
    })
    .await;
}

#[tokio::test]
async fn a_canvas_of_ours_is_asked_for_where_its_presentation_route_leads() {
    for (canvas, target) in [
        ("https://us.example/iiif-service/fedora/canvas/a", "/inner/fedora/canvas/a"),
        ("http://US.example:80/iiif-service/fedora/canvas/a?page=2", "/inner/fedora/canvas/a?page=2"),
        ("https://us.example:8443/iiif-service/fedora/canvas/a%20b", "/inner/fedora/canvas/a%20b"),
        ("https://us.example/iiif-service/fedora/canvas/a#xywh=1,1,1,1", "/inner/fedora/canvas/a"),
    ] {
        let reach = Reach::start();
        let edge = reach.edge(canvas).await;
        asks(&edge).await;
        assert_eq!(reach.canvases(), [target], "{canvas}");
        let seen = reach.service.seen();
        let host = reach.service.address().to_string();
        assert!(seen.iter().all(|seen| seen.header("host") == host), "{canvas}");
        assert_eq!(reach.stranger.seen().len(), 0);
    }
}

#[tokio::test]
async fn a_canvas_that_points_elsewhere_is_never_asked_for() {
    let reach = Reach::start();
    let (stranger, service) = (reach.stranger.address(), reach.service.address());
    let canvases = [
        // Other hosts, ports, and ways to write them.
        format!("http://{stranger}/iiif-service/fedora/canvas/a"),
        format!("http://{stranger}/inner/fedora/canvas/a"),
        format!("http://127.1:{}/iiif-service/canvas/a", stranger.port()),
        format!("http://2130706433:{}/iiif-service/canvas/a", stranger.port()),
        format!("http://[::ffff:127.0.0.1]:{}/iiif-service/canvas/a", stranger.port()),
        format!("http://localhost:{}/iiif-service/canvas/a", stranger.port()),
        "http://169.254.169.254/iiif-service/latest/meta-data".to_owned(),
        "https://us.example:22/iiif-service/fedora/canvas/a".to_owned(),
        "https://us.example.evil.example/iiif-service/canvas/a".to_owned(),
        "https://evil.example/us.example/iiif-service/canvas/a".to_owned(),
        "https://us.example./iiif-service/canvas/a".to_owned(),
        // Userinfo, and what looks like a host.
        format!("http://us.example@{stranger}/iiif-service/canvas/a"),
        format!("http://us.example:80@{stranger}/iiif-service/canvas/a"),
        format!("http://{stranger}#@us.example/iiif-service/canvas/a"),
        format!("http://{stranger}?@us.example/iiif-service/canvas/a"),
        format!("http://{stranger}\\@us.example/iiif-service/canvas/a"),
        format!("http://us.example\\@{stranger}/iiif-service/canvas/a"),
        "https://u@us.example/iiif-service/canvas/a".to_owned(),
        // Other schemes, and none.
        "file:///iiif-service/canvas/a".to_owned(),
        "gopher://us.example/iiif-service/canvas/a".to_owned(),
        "javascript://us.example/iiif-service/canvas/a".to_owned(),
        format!("//{stranger}/iiif-service/canvas/a"),
        "/iiif-service/canvas/a".to_owned(),
        "https:us.example/iiif-service/canvas/a".to_owned(),
        "https:///us.example/iiif-service/canvas/a".to_owned(),
        // Other paths, among them a longer route that is no presentation.
        "https://us.example/".to_owned(),
        "https://us.example/admin/delete?all".to_owned(),
        "https://us.example/iiif-servicex/canvas/a".to_owned(),
        "https://us.example//iiif-service/canvas/a".to_owned(),
        "https://us.example/IIIF-service/canvas/a".to_owned(),
        "https://us.example/iiif-service/private/canvas/a".to_owned(),
        format!("http://{service}/elsewhere/canvas/a"),
        // Climbing out.
        "https://us.example/iiif-service/../admin".to_owned(),
        "https://us.example/iiif-service/./canvas/a".to_owned(),
        "https://us.example/iiif-service/%2e%2e/admin".to_owned(),
        "https://us.example/iiif-service/.%2E/admin".to_owned(),
        "https://us.example/iiif-service/..%2fadmin".to_owned(),
        "https://us.example/iiif-service/..;x/admin".to_owned(),
        "https://us.example/iiif-service/a%5c..%5cadmin".to_owned(),
        "https://us.example/iiif-service/..\\admin".to_owned(),
        // What would end the request line.
        "https://us.example/iiif-service/a HTTP/1.1\r\nX: y".to_owned(),
        "https://us.example/iiif-service/a\tb".to_owned(),
    ];
    for canvas in canvases {
        let edge = reach.edge(&canvas).await;
        asks(&edge).await;
        assert_eq!(reach.canvases(), <[String; 0]>::default(), "{canvas}");
        assert_eq!(reach.stranger.seen().len(), 0, "{canvas}");
        edge.app.stop().await;
    }
    assert_eq!(reach.stranger.connections(), 0);
}

#[tokio::test]
async fn a_redirect_of_the_canvas_service_is_not_followed() {
    let mut reach = Reach::start();
    let elsewhere = format!("{}/iiif-service/canvas/b", reach.stranger.url());
    reach.service = Origin::start(move |_| Origin::answer(302, &[("location", &elsewhere)], Flow::sized("")));
    let edge = reach.edge("https://us.example/iiif-service/fedora/canvas/a").await;
    asks(&edge).await;
    assert_eq!(reach.canvases()[0], "/inner/fedora/canvas/a");
    assert_eq!(reach.stranger.connections(), 0);
}

#[tokio::test]
async fn what_a_viewer_may_say_is_not_told_to_the_canvas_service() {
    let reach = Reach::start();
    let edge = reach.edge("https://us.example/iiif-service/fedora/canvas/a").await;
    let secrets = [("authorization", "Basic eDp5"), ("cookie", "session=1"), ("x-mine", "1")];
    assert_eq!(edge.get_with(TILE, &secrets).await.status, 404);
    reach.service.seen_at_least(1).await;
    for seen in reach.service.seen() {
        assert!(secrets.iter().all(|(name, _)| seen.header(name).is_empty()), "{:?}", seen.headers);
    }
    assert_eq!(reach.images.seen()[0].header("authorization"), "Basic eDp5");
}
