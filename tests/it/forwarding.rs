//! What goes on to an upstream, and what comes back: as little changed as HTTP asks for.

use http::Method;
use testbed::raw::{Peer, answers};
use testbed::{Flow, Origin};

use crate::http2_upstream::tls_before;
use crate::support::edge::{Edge, field, fields, route, status};
use crate::support::world::{TILE, visited_book};

/// An upstream that keeps nothing alive, so that each request has a connection and a head of its own.
async fn closing_peer() -> Peer {
    Peer::start(answers("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")).await
}

/// The head with which a request arrives upstream.
async fn arrives(request: &str, more: &str) -> String {
    let peer = closing_peer().await;
    let edge = Edge::with(&peer.url(), more).await;
    let mut viewer = edge.viewer().await;
    viewer.says(request).await;
    assert_eq!(status(&viewer.head().await), 200);
    peer.heads_at_least(1).await.remove(0)
}

#[tokio::test]
async fn the_longest_prefix_wins_and_is_replaced_by_the_upstreams_path() {
    let (images, service, rest) =
        (Origin::fixed(200, "images"), Origin::fixed(200, "service"), Origin::fixed(200, "rest"));
    let routes = [
        route("/", &format!("{}/", rest.url()), "plain", ""),
        route("/iiif/", &format!("{}/cantaloupe/iiif/2/", images.url()), "image", ""),
        route("/iiif/presentation/", &format!("{}/", service.url()), "presentation", ""),
    ];
    let edge = Edge::routed(&routes.concat(), "").await;
    assert_eq!(edge.get("/iiif/abc/full/max/0/default.jpg?t=1").await.text(), "images");
    assert_eq!(edge.get("/iiif/presentation/canvas/1").await.text(), "service");
    assert_eq!(edge.get("/iiif").await.text(), "rest");
    assert_eq!(images.seen()[0].target, "/cantaloupe/iiif/2/abc/full/max/0/default.jpg?t=1");
    assert_eq!(service.seen()[0].target, "/canvas/1");
    assert_eq!(rest.seen()[0].target, "/iiif");
}

#[tokio::test]
async fn a_route_with_hosts_is_only_for_them_and_no_route_is_404() {
    let (one, two) = (Origin::fixed(200, "one"), Origin::fixed(200, "two"));
    let routes = [
        route("/a/", &format!("{}/", one.url()), "plain", "hosts = [\"One.example\"]"),
        route("/a/", &format!("{}/", two.url()), "plain", "hosts = [\"two.example:8080\"]"),
    ];
    let edge = Edge::routed(&routes.concat(), "").await;
    for (host, text) in [("ONE.example", "one"), ("one.example:81", "one"), ("two.example:8080", "two")] {
        assert_eq!(edge.get_with("/a/x", &[("host", host)]).await.text(), text);
    }
    for (host, path) in [("three.example", "/a/x"), ("two.example", "/a/x"), ("one.example", "/b")] {
        let refused = edge.get_with(path, &[("host", host)]).await;
        assert_eq!(refused.status, 404, "{host}{path}");
        assert_eq!(refused.header("proxy-status"), "iiif-mender; error=destination_not_found");
    }
    let refusals = r#"iiif_mender_requests_total{route="none",outcome="refused",status="4xx"}"#;
    assert_eq!((one.seen().len(), two.seen().len()), (2, 1));
    assert_eq!(edge.metric(refusals), 3.0);
}

#[tokio::test]
async fn paths_and_queries_go_on_byte_for_byte() {
    let peer = closing_peer().await;
    let edge =
        Edge::routed(&route("/p/", &format!("{}/q/", peer.url()), "image", ""), "heal.enabled = false").await;
    let rests = [
        "a%2Fb%2fc/full/!200,200/0/default.jpg",
        "s3:%2F%2Fbucket%2Fkey/0,0,10,10/pct:50/!90/gray.png",
        "9f1b;1/full/%21200%2C200/0/default.jpg?t=1700000000",
        "a%20b//full/^max/0/default.jpg",
        "{x}|^~'()*+,;=:@&$/-._!",
        "x?",
        "x?a=b?c=%26&d={e}|^/../",
        "%25%32%65/%C3%A9/%00",
        "caf\u{e9}/\u{1f4d6}?q=\u{fc}",
        "",
    ];
    for (count, rest) in rests.iter().enumerate() {
        let mut viewer = edge.viewer().await;
        viewer.gets(&format!("/p/{rest}")).await;
        assert_eq!(status(&viewer.head().await), 200, "{rest}");
        let heads = peer.heads_at_least(count + 1).await;
        assert!(heads[count].starts_with(&format!("GET /q/{rest} HTTP/1.1\r\n")), "{rest}: {}", heads[count]);
    }
}

#[tokio::test]
async fn an_equal_prefix_and_path_change_nothing_either() {
    for target in ["//a//b/", "/?", "/a.jpg", "/a%2Fb?x=%2F", "/a;b=c,d"] {
        let head = arrives(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), "").await;
        assert!(head.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{head}");
    }
}

#[tokio::test]
async fn the_upstream_is_called_by_its_own_name_and_told_the_viewers() {
    let head = arrives("GET /x HTTP/1.1\r\nHost: iiif.example:8080\r\n\r\n", "").await;
    assert!(field(&head, "host").starts_with("127.0.0.1:"), "{head}");
    assert_eq!(fields(&head, "host").len(), 1);
    assert_eq!(field(&head, "x-forwarded-host"), "iiif.example:8080");
    assert_eq!(field(&head, "x-forwarded-port"), "8080");
    assert_eq!(field(&head, "x-forwarded-proto"), "http");
    assert_eq!(field(&head, "x-forwarded-for"), "127.0.0.1");
    assert_eq!(field(&head, "via"), "1.1 iiif-mender");
}

#[tokio::test]
async fn preserve_host_and_connect_put_us_under_the_upstreams_old_name() {
    let origin = Origin::fixed(200, "there");
    let connect = format!("connect = \"{}\"\npreserve_host = true", origin.address());
    let edge = Edge::routed(&route("/", "http://no-such-host.invalid/", "plain", &connect), "").await;
    assert_eq!(edge.get_with("/x", &[("host", "iiif.example")]).await.text(), "there");
    let connect = format!("connect = \"{}\"", origin.address());
    let edge = Edge::routed(&route("/", "http://no-such-host.invalid:81/", "plain", &connect), "").await;
    assert_eq!(edge.get_with("/x", &[("host", "iiif.example")]).await.text(), "there");
    let seen = origin.seen();
    assert_eq!((seen[0].header("host"), seen[1].header("host")), ("iiif.example", "no-such-host.invalid:81"));
}

#[tokio::test]
async fn what_belongs_to_one_connection_stays_there_in_both_directions() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                  Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nX-Stays: 1\r\n\
                  Content-Length: 2\r\n\r\nok";
    let peer = Peer::start(answers(answer)).await;
    let edge = Edge::before(&peer.url()).await;
    let mut viewer = edge.viewer().await;
    viewer
        .says(
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-Mine, host\r\nX-Mine: 1\r\nKeep-Alive: 1\r\n\
             Proxy-Connection: keep-alive\r\nTE: trailers, gzip\r\nUpgrade: websocket\r\nHTTP2-Settings: AAMA\r\n\
             Proxy-Authorization: Basic eA==\r\nAuthorization: Bearer y\r\nCookie: a=b\r\nX-Kept: 1\r\n\r\n",
        )
        .await;
    let answer = viewer.head().await;
    for gone in ["x-hop", "keep-alive", "proxy-authenticate", "upgrade", "http2-settings", "connection"] {
        assert_eq!(field(&answer, gone), "", "{answer}");
    }
    assert_eq!(field(&answer, "x-stays"), "1");
    let head = peer.heads_at_least(1).await.remove(0);
    for gone in [
        "connection",
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "proxy-authorization",
    ] {
        assert_eq!(field(&head, gone), "", "{head}");
    }
    for (kept, value) in [("authorization", "Bearer y"), ("cookie", "a=b"), ("x-kept", "1")] {
        assert_eq!(field(&head, kept), value, "{head}");
    }
}

const SAYS_A_LOT: &str = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: iiif.example\r\nX-Forwarded-ID: other\r\nX-Forwarded-Path: /x\r\nForwarded: for=1.1.1.1\r\n\r\n";

#[tokio::test]
async fn a_stranger_is_not_believed_about_who_it_is() {
    let head = arrives(SAYS_A_LOT, "").await;
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "h"),
        ("x-forwarded-port", "80"),
        ("x-forwarded-id", ""),
        ("x-forwarded-path", ""),
        ("forwarded", "for=127.0.0.1;host=\"h\";proto=http"),
    ] {
        assert_eq!(field(&head, name), value, "{name}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let head = arrives(SAYS_A_LOT, "server.trusted_proxies = 127.0.0.0/8").await;
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.5, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "iiif.example"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-id", "other"),
        ("x-forwarded-path", "/x"),
    ] {
        assert_eq!(field(&head, name), value, "{name}");
    }
}

#[tokio::test]
async fn an_image_server_below_another_prefix_is_told_what_stands_before_its_own_path() {
    let peer = closing_peer().await;
    let routes = route("/library/iiif/2/", &format!("{}/iiif/2/", peer.url()), "image", "");
    let edge = Edge::routed(&routes, "heal.enabled = false").await;
    edge.get("/library/iiif/2/abc/info.json").await;
    let head = peer.heads_at_least(1).await.remove(0);
    assert_eq!(field(&head, "x-forwarded-path"), "/library", "{head}");
}

#[tokio::test]
async fn a_post_without_a_body_says_so() {
    let head = arrives("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "").await;
    assert_eq!(field(&head, "content-length"), "0", "{head}");
}

#[tokio::test]
async fn conditions_and_ranges_pass_in_both_directions() {
    let origin = Origin::start(|seen| {
        if seen.header("if-none-match") == "\"a\"" {
            return Origin::answer(
                304,
                &[("etag", "\"a\""), ("cache-control", "max-age=1")],
                Flow::sized(""),
            );
        }
        assert_eq!((seen.header("range"), seen.header("if-range")), ("bytes=1-2", "\"a\""));
        Origin::answer(206, &[("content-range", "bytes 1-2/5"), ("etag", "\"a\"")], Flow::sized("bc"))
    });
    let edge = Edge::before(&origin.url()).await;
    let same = edge.get_with("/x", &[("if-none-match", "\"a\"")]).await;
    assert_eq!((same.status, same.header("etag"), same.header("cache-control")), (304, "\"a\"", "max-age=1"));
    assert_eq!((same.header("content-length"), same.body.len()), ("", 0));
    let part = edge.get_with("/x", &[("range", "bytes=1-2"), ("if-range", "\"a\"")]).await;
    assert_eq!((part.status, part.header("content-range"), &*part.text()), (206, "bytes 1-2/5", "bc"));
}

#[tokio::test]
async fn options_pass_with_one_step_less_and_end_here_at_zero() {
    let head =
        arrives("OPTIONS /x HTTP/1.1\r\nHost: h\r\nOrigin: https://v\r\nMax-Forwards: 3\r\n\r\n", "").await;
    assert!(head.starts_with("OPTIONS /x HTTP/1.1\r\n"), "{head}");
    assert_eq!((field(&head, "max-forwards"), field(&head, "origin")), ("2", "https://v"));
    let origin = Origin::fixed(200, "never asked");
    let edge = Edge::before(&origin.url()).await;
    for target in ["/x HTTP/1.1\r\nMax-Forwards: 0", "* HTTP/1.1"] {
        let answer = edge.says(&format!("OPTIONS {target}\r\nHost: h\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(status(&answer), 204, "{answer}");
        assert!(field(&answer, "allow").contains("GET, HEAD, OPTIONS"), "{answer}");
        assert_eq!(field(&answer, "content-length"), "");
    }
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test]
async fn trace_and_connect_are_refused() {
    let origin = Origin::fixed(200, "never asked");
    let edge = Edge::before(&origin.url()).await;
    for request in ["TRACE / HTTP/1.1\r\nHost: h", "CONNECT h:443 HTTP/1.1\r\nHost: h:443"] {
        let answer = edge.says(&format!("{request}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(status(&answer), 405, "{answer}");
        assert!(field(&answer, "allow").starts_with("GET, HEAD"));
    }
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test]
async fn a_request_that_comes_back_a_second_time_is_a_loop() {
    let origin = Origin::fixed(200, "through");
    let edge = Edge::before(&origin.url()).await;
    assert_eq!(edge.get_with("/", &[("via", "1.1 iiif-mender")]).await.status, 200);
    let refused = edge.get_with("/", &[("via", "1.1 iiif-mender, 1.1 x"), ("via", "1.1 iiif-mender")]).await;
    assert_eq!((refused.status, origin.seen().len()), (508, 1));
    assert_eq!(refused.header("proxy-status"), "iiif-mender; error=proxy_loop_detected");
    assert_eq!(origin.seen()[0].header("via"), "1.1 iiif-mender, 1.1 iiif-mender");
}

#[tokio::test]
async fn an_answer_has_one_date_and_our_via() {
    let date = "Sun, 22 Nov 2026 00:00:00 GMT";
    let answer = format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nVia: 1.0 cache\r\nContent-Length: 2\r\n\r\nok");
    let peer = Peer::start(answers(answer)).await;
    let edge = Edge::before(&peer.url()).await;
    let answer = edge.says("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert_eq!(fields(&answer, "date"), [date]);
    assert_eq!(fields(&answer, "via"), ["1.0 cache, 1.1 iiif-mender"]);
}

#[tokio::test]
async fn connections_to_an_upstream_are_kept_and_used_again() {
    let origin = Origin::start(|seen| match &*seen.target {
        "/chunked" => Origin::answer(200, &[], Flow::chunked("some text")),
        "/nothing" => Origin::answer(204, &[], Flow::sized("")),
        _ => Origin::answer(200, &[], Flow::sized("some text")),
    });
    let edge = Edge::before(&origin.url()).await;
    for path in ["/sized", "/chunked", "/nothing", "/missing", "/sized"] {
        edge.get(path).await;
        edge.client.head(&edge.url(path), &[]).await.expect("an answer");
        edge.client.send(Method::POST, &edge.url(path), &[]).await.expect("an answer");
        edge.says(&format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
        ))
        .await;
    }
    assert_eq!((origin.seen().len(), origin.connections()), (20, 1));
}

#[tokio::test]
async fn the_target_of_a_full_request_line_counts_more_than_host() {
    let head = arrives("GET http://named.example/x?y HTTP/1.1\r\nHost: other.example\r\n\r\n", "").await;
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "x-forwarded-host"), "named.example");
}

#[tokio::test]
async fn a_full_request_line_without_a_path_asks_for_the_root() {
    for (target, onward) in
        [("http://a.example", "/"), ("http://a.example?x=1", "/?x=1"), ("http://a.example#part", "/")]
    {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let head = arrives(&request, "").await;
        assert!(head.starts_with(&format!("GET {onward} HTTP/1.1\r\n")), "{target}: {head}");
    }
}

#[tokio::test]
async fn an_upstream_with_tls_is_believed_with_the_authority_that_the_configuration_names() {
    let origin = Origin::fixed(200, "secret");
    let (address, folder) = tls_before(&origin, &[], false).await;
    let to =
        |name: &str| route("/", &format!("https://{name}/"), "plain", &format!("connect = \"{address}\""));
    let trusting = format!("upstream.ca = {}", folder.path().join("cert.pem").display());
    let edge = Edge::routed(&to("images.example"), &trusting).await;
    assert_eq!(edge.get("/").await.text(), "secret");
    // Without the authority, and under another name.
    for (name, more) in [("images.example", ""), ("other.example", &*trusting)] {
        let refused = Edge::routed(&to(name), more).await.get("/").await;
        assert_eq!(refused.status, 502, "{name}");
        assert_eq!(refused.header("proxy-status"), "iiif-mender; error=tls_certificate_error");
    }
}

#[tokio::test]
async fn the_upstreams_host_is_its_own_and_its_path_joins_with_or_without_a_slash() {
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
async fn a_healthy_answer_gains_a_via_and_an_id_and_nothing_that_tells_how_it_is_here() {
    let world = visited_book(1, "").await;
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
