//! Those scenarios that concern the edge; see docs/TESTING.md, "Somebody else's scenarios".

use testbed::{Flow, Kind, Origin, Testbed};

use crate::edge::{Edge, fields, route};
use crate::world::World;

const TILE: &str = "0,0,256,256/64,/0/default.jpg";

async fn book(more: &str) -> World {
    let bed = Testbed::builder().book("obj/book", 1).page_size(600, 800).start().await;
    World::over(bed, &format!("heal.ahead = 0\nheal.ladder = visit,rebuild\n{more}")).await
}

#[tokio::test]
async fn no_12_no_error_of_ours_is_kept_by_a_cache_or_hidden_from_a_script_and_each_has_an_id() {
    let (dead, stuck) = (Origin::fixed(200, ""), Origin::fixed(200, ""));
    dead.goes_down().await;
    stuck.stalls();
    let routes = [
        route("/dead/", &format!("{}/", dead.url()), "plain", ""),
        route("/stuck/", &format!("{}/", stuck.url()), "plain", ""),
    ];
    let more = "upstream.first_byte_timeout = 1s\nupstream.max_requests = 1\nupstream.queue_wait = 100ms";
    let edge = Edge::routed(&routes.concat(), more).await;
    // Of two that are stuck one gets no place.
    let (one, other) = tokio::join!(edge.get("/stuck/a"), edge.get("/stuck/b"));
    let (late, busy) = if one.status == 504 { (one, other) } else { (other, one) };
    let answers = [
        (400, edge.get("/dead/a%2F../b").await),
        (404, edge.get("/nowhere").await),
        (502, edge.get("/dead/a").await),
        (503, busy),
        (504, late),
    ];
    for (status, answer) in answers {
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("cache-control"), "no-store", "{status}");
        let origins: Vec<_> = answer.headers.get_all("access-control-allow-origin").iter().collect();
        assert_eq!(origins, ["*"], "{status}");
        assert_eq!(answer.header("x-request-id").len(), 32, "{status}");
        assert_eq!(answer.header("retry-after"), if status == 503 { "1" } else { "" });
    }
}

#[tokio::test]
async fn no_12_errors_of_the_image_server_pass_as_they_are() {
    for status in [400, 403, 410, 500, 503] {
        let own = [("cache-control", "max-age=7"), ("x-own", "1")];
        let origin = Origin::start(move |_| Origin::answer(status, &own, Flow::sized("so it says")));
        let images = route("/iiif/2/", &format!("{}/iiif/2/", origin.url()), "image", "");
        let edge = Edge::routed(&images, "heal.enabled = false").await;
        let answer = edge.get("/iiif/2/x/full/full/0/default.jpg").await;
        assert_eq!((answer.status, &*answer.text()), (status, "so it says"));
        assert_eq!((answer.header("cache-control"), answer.header("x-own")), ("max-age=7", "1"));
    }
}

#[tokio::test]
async fn no_13_who_may_read_is_said_once() {
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

#[tokio::test]
async fn no_16_spellings_arrive_byte_for_byte_and_a_heal_asks_again_with_the_same_bytes() {
    let world = book("").await;
    let page = world.bed.page();
    let rests = [
        "full/!200,200/0/default.jpg",
        "full/%21200%2C200/0/default.jpg",
        "0%2c0%2C256%2C256/64,/0/default.jpg?t=%2F%20;x",
        "full/^!90,90/!0/default.jpg",
        "pct:0,0,50,50/,90/0/gray.png",
    ];
    for rest in rests {
        world.bed.expires_everything();
        world.bed.ledger.clear();
        let path = page.image_path(rest);
        let answer = world.get(&path).await;
        world.settles().await;
        let targets = world.bed.targets(Kind::Image);
        assert!(targets.contains(&path), "{path}: {targets:?}");
        if answer.header("heal-status").starts_with("healed") {
            assert!(targets.iter().filter(|target| **target == path).count() >= 2, "{targets:?}");
        }
        // Nothing but what the viewer asked for, and our own looks at small tiles.
        assert!(targets.iter().all(|target| target.starts_with("/iiif/2/")), "{targets:?}");
    }
    let origin = Origin::fixed(404, "no");
    let images = route("/iiif/2/", &format!("{}/iiif/2/", origin.url()), "image", "");
    let edge = Edge::routed(&images, "heal.enabled = false").await;
    let identifiers =
        ["x.jpg", "x.JPG", "s3:%2F%2Fbucket%2fkey.tif", "a%20b", "%E2%9C%93", "fedora:a;1", "a%2Cb"];
    for (count, identifier) in identifiers.iter().enumerate() {
        let path = format!("/iiif/2/{identifier}/full/!200,200/0/default.jpg");
        assert_eq!(edge.get(&path).await.text(), "no");
        let seen = origin.seen();
        assert_eq!((seen.len(), &seen[count].target), (count + 1, &path), "asked once, and for this");
    }
}

#[tokio::test]
async fn no_18_the_upstreams_host_is_its_own_and_its_path_joins_with_or_without_a_slash() {
    let origin = Origin::fixed(200, "there");
    let authority = origin.address().to_string();
    for (prefix, base, asked, target) in [
        ("/a/", "/base/", "/a/x", "/base/x"),
        ("/a", "/base", "/a/x", "/base/x"),
        ("/a/", "/", "/a/x", "/x"),
        ("/", "", "/a//x", "/a//x"),
    ] {
        let edge = Edge::routed(&route(prefix, &format!("http://{authority}{base}"), "plain", ""), "").await;
        assert_eq!(edge.get_with(asked, &[("host", "public.example")]).await.text(), "there");
        let seen = origin.seen().pop().expect("a request");
        assert_eq!((&*seen.target, seen.header("host")), (target, &*authority), "{prefix} {base}");
    }
}

#[tokio::test]
async fn no_19_a_body_that_breaks_is_an_aborted_message_and_nothing_is_healed() {
    let world = book("").await;
    let page = world.bed.page();
    for path in [page.image_path(TILE), page.info_path()] {
        world.bed.images.cuts_body_after(10);
        for _ in 0..3 {
            let asked = world.client.get(&world.url(&path), &[]).await;
            assert!(asked.is_err(), "{path}: {asked:?}");
        }
        world.bed.images.recovers();
        assert_eq!(world.get(&path).await.status, 200);
    }
    assert_eq!(world.bed.counts().healing(), 0, "{:?}", world.bed.counts());
}

#[tokio::test]
async fn no_20_without_an_image_server_the_answer_is_502_and_no_canvas_is_asked_for() {
    let world = book("").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.images.goes_down().await;
    for path in [page.image_path(TILE), page.info_path(), page.thumbnail_path()] {
        let answer = world.get(&path).await;
        assert_eq!((answer.status, answer.header("heal-status")), (502, ""), "{path}");
    }
    world.settles().await;
    assert_eq!(world.bed.counts().healing(), 0, "{:?}", world.bed.counts());
    // Back again it is asked again, and heals.
    world.bed.images.comes_up();
    assert_eq!(world.get(&page.image_path(TILE)).await.body, page.picture(TILE));
}

#[tokio::test]
async fn no_24_a_healthy_answer_gains_a_via_and_an_id_and_nothing_that_tells_how_it_is_here() {
    let world = book("").await;
    let page = world.bed.page();
    world.bed.registers_everything();
    let unknown = "/iiif/2/00000000-0000-3000-8000-000000000000/info.json".to_owned();
    for path in [page.image_path(TILE), page.info_path(), unknown] {
        let (ours, direct) = (world.get(&path).await, world.asks_directly(&path).await);
        assert_eq!((ours.status, &ours.body), (direct.status, &direct.body));
        let mut gained: Vec<_> =
            ours.headers.keys().filter(|name| !direct.headers.contains_key(*name)).collect();
        gained.sort_by_key(|name| name.as_str().to_owned());
        assert_eq!(gained, ["via", "x-request-id"], "{path}");
        assert!(direct.headers.keys().all(|name| ours.headers.contains_key(name)), "{path}");
    }
}
