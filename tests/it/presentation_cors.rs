//! A viewer on any web site may read manifests, canvases and info.json, and may ask first.

use http::Method;
use testbed::{Fetched, Flow, Origin};

use crate::support::edge::{Edge, fields, route};
use crate::support::world::World;

const ANYBODY: &str = "access-control-allow-origin";

/// A proxy with an image route and a presentation route to this server.
async fn before(origin: &Origin) -> Edge {
    let url = origin.url();
    let routes = testbed::routes(&url, &url) + &route("/", &format!("{url}/"), "plain", "");
    Edge::routed(&routes, "server.public_hosts = api.library.tamu.edu").await
}

async fn options(world: &World, path: &str, fields: &[(&str, &str)]) -> Fetched {
    world.client.send(Method::OPTIONS, &world.url(path), fields).await.expect("an answer")
}

const PREFLIGHT: &[(&str, &str)] = &[
    ("origin", "https://mirador.example"),
    ("access-control-request-method", "GET"),
    ("access-control-request-headers", "authorization,x-y"),
];

#[tokio::test]
async fn documents_are_open_to_all_whether_they_come_or_not() {
    let world = World::start().await;
    let page = world.bed.page();
    for path in [&page.presentation_path, &page.canvas_path, &page.info_path()] {
        assert_eq!(world.get(path).await.header(ANYBODY), "*", "{path}");
    }
    let unknown = world.get("/iiif-service/fedora/canvas/nothing").await;
    assert_eq!((unknown.status, unknown.header(ANYBODY)), (500, "*"));
    world.bed.service.goes_down().await;
    let refused = world.get(&page.presentation_path).await;
    assert_eq!((refused.status, refused.header(ANYBODY)), (502, "*"));
}

#[tokio::test]
async fn what_the_service_says_of_who_may_read_stays_as_it_is() {
    let world = World::start().await;
    let answer =
        world.get_with(&world.bed.page().canvas_path, &[("origin", "https://mirador.example")]).await;
    let all: Vec<_> = answer.headers.get_all(ANYBODY).iter().collect();
    assert_eq!(all, ["https://mirador.example"]);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
}

#[tokio::test]
async fn a_browser_that_asks_first_is_answered_even_where_the_servers_do_not_know_options() {
    let world = World::start().await;
    let page = world.bed.page();
    for path in [&page.presentation_path, &page.canvas_path, &page.info_path()] {
        let answer = options(&world, path, PREFLIGHT).await;
        assert_eq!((answer.status, answer.header(ANYBODY)), (204, "*"), "{path}");
        assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD, OPTIONS");
        assert_eq!(answer.header("access-control-allow-headers"), "authorization,x-y");
        assert!(answer.header("vary").contains("Access-Control-Request-Headers"));
    }
    let plain = options(&world, &page.presentation_path, &[]).await;
    assert_eq!((plain.status, plain.header("allow")), (204, "GET, HEAD, OPTIONS"));
    assert_eq!(world.bed.counts().generations, 0, "to ask first builds nothing");
}

#[tokio::test]
async fn a_server_that_answers_options_itself_is_heard() {
    let allowed = [(ANYBODY, "https://mirador.example"), ("access-control-allow-credentials", "true")];
    let origin = Origin::start(move |_| Origin::answer(200, &allowed, Flow::sized("")));
    let edge = before(&origin).await;
    let url = edge.url("/iiif-service/x");
    let answer = edge.client.send(Method::OPTIONS, &url, PREFLIGHT).await.expect("an answer");
    assert_eq!((answer.status, answer.header(ANYBODY)), (200, "https://mirador.example"));
}

const EXPOSED: &str = "access-control-expose-headers";
const OURS: [&str; 6] =
    ["Retry-After", "Heal-Status", "Cache-Status", "X-Request-ID", "Server-Timing", "Proxy-Status"];

fn exposes_ours(answer: &Fetched) -> bool {
    let said: Vec<_> = answer.header(EXPOSED).split(", ").collect();
    OURS.iter().all(|name| said.contains(name))
}

#[tokio::test]
async fn scripts_may_read_our_fields_besides_those_of_the_upstream() {
    let world = World::start().await;
    let page = world.bed.page();
    // Opened by us: the service says nothing to who names no origin.
    let answer = world.get(&page.presentation_path).await;
    assert!(answer.status == 200 && exposes_ours(&answer), "{:?}", answer.headers);
    world.bed.expires_everything();
    let healed = world.get(&page.thumbnail_path()).await;
    assert!(
        healed.status == 200 && healed.header("heal-status").starts_with("healed"),
        "{:?}",
        healed.headers
    );
    assert!(exposes_ours(&healed), "{:?}", healed.headers);
    world.bed.service.goes_down().await;
    let refused = world.get(&page.presentation_path).await;
    assert!(refused.status == 502 && exposes_ours(&refused), "{:?}", refused.headers);
    let origin = Origin::start(|_| {
        let said = [(EXPOSED, "Link, x-request-id")];
        Origin::answer(200, &said, Flow::sized("{}"))
    });
    let edge = before(&origin).await;
    let answer = edge.get("/iiif-service/x").await;
    let all: Vec<_> = answer.headers.get_all(EXPOSED).iter().collect();
    let expected = "Link, x-request-id, Retry-After, Heal-Status, Cache-Status, Server-Timing, Proxy-Status";
    assert_eq!(all, [expected]);
}

#[tokio::test]
async fn who_asks_with_credentials_is_named() {
    let origin = Origin::start(|seen| {
        let own: &[(&str, &str)] = if seen.target.ends_with("/own") { &[("vary", "Cookie")] } else { &[] };
        Origin::answer(200, own, Flow::sized("{}"))
    });
    let edge = before(&origin).await;
    let viewer = ("origin", "https://mirador.example");
    let document = "/iiif-service/x";
    for credentials in [("cookie", "session=1"), ("authorization", "Bearer x")] {
        for path in [document, "/iiif/2/../x"] {
            let answer = edge.get_with(path, &[viewer, credentials]).await;
            assert_eq!(answer.header(ANYBODY), viewer.1, "{path}: {:?}", answer.headers);
            assert_eq!(answer.header("access-control-allow-credentials"), "true");
            assert!(answer.header("vary").contains("Origin"), "{:?}", answer.headers);
        }
    }
    // Without credentials, and what is one person's own, as before.
    for (path, fields) in [
        (document, &[viewer][..]),
        (document, &[("cookie", "session=1")]),
        ("/iiif-service/own", &[viewer, ("cookie", "session=1")]),
    ] {
        let answer = edge.get_with(path, fields).await;
        assert_eq!(answer.header(ANYBODY), "*", "{path} {fields:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
}

#[tokio::test]
async fn who_may_read_is_said_once() {
    for status in [200, 404, 500] {
        let origin = Origin::start(move |_| {
            Origin::answer(
                status,
                &[("access-control-allow-origin", "https://one.example")],
                Flow::sized("x"),
            )
        });
        let images = route("/iiif/2/", &format!("{}/iiif/2/", origin.url()), "image", "");
        let edge = Edge::routed(&images, "heal.enabled = false").await;
        let asked = "GET /iiif/2/x/info.json HTTP/1.1\r\nHost: h\r\nOrigin: https://two.example\r\nConnection: close\r\n\r\n";
        let answer = edge.says(asked).await;
        assert_eq!(fields(&answer, "access-control-allow-origin"), ["https://one.example"], "{answer}");
    }
}
