//! HTTP/2 to upstreams: shared connections, and a viewer who cannot tell the difference.
#![allow(
    clippy::disallowed_methods,
    reason = "a stand-in for a web server connects; the rule is for the product"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use testbed::{Flow, Origin};
use tokio::net::{TcpListener, TcpStream};

use crate::support::edge::{Edge, Load, Viewer, fields, route, status};
use crate::support::world::patiently;

const ALWAYS: &str = "upstream.http2 = always";

fn speaking_http2(streams: usize) -> Origin {
    let origin = Origin::start(|seen| match seen.path() {
        "/tile" => Origin::answer(200, &[("content-type", "image/jpeg")], Flow::sized(tile())),
        _ => Origin::answer(200, &[], Flow::sized(seen.body.clone())),
    });
    origin.speaks_http2(streams);
    origin
}

/// 1 MiB that differs everywhere.
fn tile() -> Bytes {
    (0..1_u32 << 18).flat_map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

async fn asking(edge: &Edge, count: usize, path: &str) -> Vec<Viewer> {
    let mut viewers = Vec::new();
    for _ in 0..count {
        let mut viewer = edge.viewer().await;
        viewer.gets(path).await;
        viewers.push(viewer);
    }
    viewers
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let origin = speaking_http2(100);
    let edge = Edge::with(&origin.url(), &format!("{ALWAYS}\nupstream.max_requests = 1000")).await;
    origin.stalls();
    let mut viewers = asking(&edge, 50, "/a%2Fb;1/!200,200?x=%2C").await;
    let seen = origin.seen_at_least(50).await;
    assert_eq!(origin.connections(), 1);
    for seen in &seen {
        assert_eq!(seen.target, "/a%2Fb;1/!200,200?x=%2C");
        assert_eq!(seen.authority.as_deref(), Some(&*origin.address().to_string()));
        assert!(
            ["host", "connection", "te"].iter().all(|name| !seen.headers.contains_key(*name)),
            "{seen:?}"
        );
        assert_eq!(seen.header("via"), "1.1 iiif-mender");
    }
    origin.releases();
    for viewer in &mut viewers {
        let head = viewer.head().await;
        assert_eq!((status(&head), fields(&head, "via")), (200, vec!["2.0 iiif-mender"]));
        assert!(head.starts_with("HTTP/1.1 "), "{head}");
    }
    edge.rests().await;
}

#[tokio::test]
async fn a_server_gets_no_more_at_once_on_a_connection_than_it_allows() {
    let origin = speaking_http2(4);
    let edge = Edge::with(&origin.url(), ALWAYS).await;
    assert_eq!(edge.get("/").await.status, 200);
    origin.stalls();
    let mut viewers = asking(&edge, 12, "/").await;
    origin.seen_at_least(13).await;
    assert!((3..=6).contains(&origin.connections()), "{}", origin.connections());
    origin.releases();
    for viewer in &mut viewers {
        assert_eq!(status(&viewer.head().await), 200);
    }
    edge.rests().await;
}

#[tokio::test]
async fn so_does_our_own_bound() {
    let origin = speaking_http2(100);
    let edge = Edge::with(&origin.url(), &format!("{ALWAYS}\nupstream.http2_streams = 5")).await;
    origin.stalls();
    let viewers = asking(&edge, 10, "/").await;
    origin.seen_at_least(10).await;
    assert_eq!(origin.connections(), 2);
    origin.releases();
    drop(viewers);
    edge.rests().await;
}

#[tokio::test]
async fn tiles_of_a_mebibyte_come_whole_and_side_by_side() {
    let origin = speaking_http2(100);
    let edge = Edge::with(&origin.url(), ALWAYS).await;
    let whole = tile();
    for answer in join_all((0..40).map(|_| edge.get("/tile"))).await {
        assert_eq!((answer.status, answer.header("content-length")), (200, "1048576"));
        assert!(answer.body == whole, "a wrong byte");
    }
    let head = edge.client.send(Method::HEAD, &edge.url("/tile"), &[]).await.expect("an answer");
    assert_eq!((head.status, head.body.len()), (200, 0));
    edge.rests().await;
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_viewer_who_does_not_read_keeps_nobody_else_from_reading() {
    let origin = speaking_http2(100);
    let edge = Edge::with(&origin.url(), ALWAYS).await;
    let mut lazy = asking(&edge, 8, "/tile").await;
    for viewer in &mut lazy {
        viewer.head().await;
    }
    for _ in 0..10 {
        assert_eq!(edge.get("/tile").await.body.len(), 1 << 20);
    }
    drop(lazy);
    edge.rests().await;
    assert_eq!(origin.connections(), 1, "a viewer who leaves resets a stream, not the connection");
}

#[tokio::test]
async fn an_upload_arrives() {
    let origin = speaking_http2(100);
    let edge = Edge::with(&origin.url(), ALWAYS).await;
    for body in ["Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"]
    {
        let said = format!("POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{body}");
        let answer = edge.says(&said).await;
        assert!(status(&answer) == 200 && answer.ends_with("body"), "{answer}");
    }
    edge.rests().await;
}

#[tokio::test]
async fn a_refused_stream_is_asked_for_again() {
    let origin = speaking_http2(100);
    let edge = Edge::with(&origin.url(), ALWAYS).await;
    assert_eq!(edge.get("/").await.status, 200);
    for _ in 0..3 {
        origin.refuses_streams(1);
        assert_eq!(edge.get("/").await.status, 200);
    }
    assert_eq!(edge.metric(r#"iiif_mender_upstream_retries_total{kind="unsent"}"#), 3.0);
    // Once, and not for ever.
    origin.refuses_streams(100);
    assert_eq!(edge.get("/").await.status, 502);
    origin.refuses_streams(0);
    assert_eq!(edge.get("/").await.status, 200);
    edge.rests().await;
}

#[tokio::test]
async fn a_goodbye_costs_nobody_anything() {
    let origin = speaking_http2(100);
    let edge = Arc::new(Edge::with(&origin.url(), ALWAYS).await);
    origin.stalls();
    let mut viewers = asking(&edge, 5, "/").await;
    origin.seen_at_least(5).await;
    origin.says_goodbye();
    origin.releases();
    for viewer in &mut viewers {
        assert_eq!(status(&viewer.head().await), 200);
    }
    let load = Load::on(&edge, 8);
    for _ in 0..20 {
        let (connections, seen) = (origin.connections(), origin.seen().len());
        origin.says_goodbye();
        patiently("a new connection is used", || {
            origin.connections() > connections && origin.seen().len() > seen + 20
        })
        .await;
    }
    load.ends().await;
    edge.rests().await;
}

#[tokio::test]
async fn a_server_killed_under_load_fails_no_get_here_either() {
    let (one, other) = (speaking_http2(100), speaking_http2(100));
    let connect = format!("connect = [\"{}\", \"{}\"]", one.address(), other.address());
    let more = format!("{ALWAYS}\nupstream.health.out = 50ms");
    let edge = Arc::new(Edge::routed(&route("/", "http://pair.invalid/", "plain", &connect), &more).await);
    let load = Load::on(&edge, 8);
    for _ in 0..3 {
        load.more(50).await;
        one.goes_down().await;
        load.more(50).await;
        let seen = one.seen().len();
        one.comes_up();
        patiently("it is asked again", || one.seen().len() > seen + 5).await;
    }
    load.ends().await;
    edge.rests().await;
}

#[tokio::test]
async fn a_body_that_breaks_or_stalls_is_aborted_and_its_neighbours_are_whole() {
    let origin = Origin::start(|seen| {
        let whole = Flow::sized("0123456789");
        Origin::answer(
            200,
            &[],
            match seen.path() {
                "/cut" => whole.cut_after(5),
                "/stuck" => whole.stuck_after(5),
                _ => whole,
            },
        )
    });
    origin.speaks_http2(100);
    let edge = Edge::with(&origin.url(), &format!("{ALWAYS}\nupstream.body_timeout = 200ms")).await;
    for path in ["/cut", "/stuck"] {
        let mut viewer = edge.viewer().await;
        viewer.gets(path).await;
        assert_eq!(status(&viewer.head().await), 200);
        assert_eq!(viewer.rest().await.text, "01234", "{path}");
        assert_eq!(edge.get("/").await.text(), "0123456789");
        edge.rests().await;
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_504_and_the_connection_is_kept_for_others() {
    let origin = speaking_http2(100);
    let edge = Edge::with(&origin.url(), &format!("{ALWAYS}\nupstream.first_byte_timeout = 200ms")).await;
    origin.stalls();
    assert_eq!(edge.get("/").await.status, 504);
    origin.releases();
    assert_eq!(edge.get("/").await.status, 200);
    edge.rests().await;
    assert_eq!(origin.connections(), 1);
}

/// TLS before an origin, which offers these protocols and may want to know who asks.
pub(crate) async fn tls_before(
    origin: &Origin,
    alpn: &[&str],
    wants_certificate: bool,
) -> (SocketAddr, tempfile::TempDir) {
    let made = rcgen::generate_simple_self_signed(["images.example".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("a file");
    std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("protocol versions");
    let config = if wants_certificate {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        config.with_client_cert_verifier(verifier.expect("a verifier"))
    } else {
        config.with_no_client_auth()
    };
    let mut config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("a certificate");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, behind) = (listener.local_addr().expect("an address"), origin.address());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut front) = acceptor.accept(stream).await else { return };
                let Ok(mut back) = TcpStream::connect(behind).await else { return };
                let _ended = tokio::io::copy_bidirectional(&mut front, &mut back).await;
            });
        }
    });
    (address, folder)
}

async fn over_tls(address: SocketAddr, folder: &tempfile::TempDir, more: &str) -> Edge {
    let to = route("/", "https://images.example/", "plain", &format!("connect = \"{address}\""));
    let ca = folder.path().join("cert.pem");
    Edge::routed(&to, &format!("upstream.ca = {}\n{more}", ca.display())).await
}

#[tokio::test]
async fn over_tls_the_server_chooses_between_what_both_speak() {
    for (alpn, mode, is_http2) in [
        (&["h2", "http/1.1"][..], "auto", true),
        (&["http/1.1"], "auto", false),
        (&[], "auto", false),
        (&["h2", "http/1.1"], "off", false),
    ] {
        let origin = speaking_http2(if is_http2 { 100 } else { 0 });
        let (address, folder) = tls_before(&origin, alpn, false).await;
        let edge = over_tls(address, &folder, &format!("upstream.http2 = {mode}")).await;
        for answer in join_all((0..20).map(|_| edge.get("/"))).await {
            assert_eq!(answer.status, 200, "{alpn:?} {mode}");
        }
        edge.rests().await;
        let seen = origin.seen();
        assert!(seen.iter().all(|seen| seen.authority.is_some() == is_http2), "{alpn:?} {mode}");
        if is_http2 {
            assert_eq!(seen[0].authority.as_deref(), Some("images.example"));
            assert_eq!(origin.connections(), 1);
        }
    }
}

#[tokio::test]
async fn an_upstream_that_asks_who_we_are_is_shown_our_certificate() {
    let origin = Origin::fixed(200, "ok");
    let (address, folder) = tls_before(&origin, &[], true).await;
    let refused = over_tls(address, &folder, "").await.get("/").await;
    assert_eq!(refused.status, 502);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let own = format!(
        "upstream.client_certificate.cert = {}\nupstream.client_certificate.key = {}",
        path("cert.pem"),
        path("key.pem")
    );
    assert_eq!(over_tls(address, &folder, &own).await.get("/").await.text(), "ok");
}
