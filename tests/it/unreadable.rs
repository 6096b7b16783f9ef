//! Heads that cannot be read: what their senders are told, and what is left of them.

use rustls_pki_types::CertificateDer;
use testbed::Origin;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::edge::{Edge, field, route, status};
use crate::support::tls::{TlsClient, makes};
use crate::support::world::checked;

const REFUSED: &str = "iiif_mender_requests_total{route=\"none\",outcome=\"refused\",status=\"4xx\"}";

#[tokio::test]
async fn whatever_cannot_be_read_gets_an_answer_that_says_so() {
    let origin = Origin::fixed(200, "fine");
    let edge = Edge::before(&origin.url()).await;
    let json = "Origin: https://viewer.example\r\nAccept: application/json\r\n";
    let long = "x".repeat(70_000);
    let heads = [
        (format!("GET /a<b>c HTTP/1.1\r\nHost: h\r\n{json}\r\n"), 400),
        (format!("GET /a`b HTTP/1.1\r\nHost: h\r\n{json}\r\n"), 400),
        (format!("GET /a?b=<c> HTTP/1.1\r\nHost: h\r\n{json}\r\n"), 400),
        (format!("GET /a b HTTP/1.1\r\nHost: h\r\n{json}\r\n"), 400),
        (format!("GET /a\u{1}b HTTP/1.1\r\nHost: h\r\n{json}\r\n"), 400),
        (format!("G(T /a HTTP/1.1\r\nHost: h\r\n{json}\r\n"), 400),
        (format!("GET /a HTTP/3.0\r\nHost: h\r\n{json}\r\n"), 400),
        (format!("GET /a http/1.1\r\nHost: h\r\n{json}\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\n{json}\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\n{json}H@st: h\r\n\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\n{json}Host : h\r\n\r\n"), 400),
        (format!("POST /a HTTP/1.1\r\nHost: h\r\n{json}Content-Length: +1\r\n\r\nx"), 400),
        (format!("POST /a HTTP/1.1\r\nHost: h\r\n{json}Transfer-Encoding: gzip\r\n\r\nx"), 400),
        (format!("GET /{long} HTTP/1.1\r\nHost: h\r\n{json}\r\n"), 431),
        (format!("GET /a HTTP/1.1\r\nHost: h\r\n{json}X: {long}\r\n\r\n"), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{json}\r\n", &long[..10_000]), 414),
        (format!("GET /a HTTP/1.1\r\nHost: h\r\n{json}{}\r\n", "X: 1\r\n".repeat(200)), 431),
    ];
    for (count, (head, expected)) in (1..).zip(&heads) {
        let mut viewer = edge.viewer().await;
        // Who is refused in the middle gets no farther with sending.
        let _sent = viewer.tries(head.as_bytes()).await;
        let answer = String::from_utf8_lossy(&viewer.rest_bytes().await).into_owned();
        let short = &head[..head.len().min(80)];
        // What was not read ends the connection with RST, and takes the answer along now and then.
        if head.len() > 60_000 && answer.is_empty() {
            continue;
        }
        assert_eq!(status(&answer), *expected, "{short:?}: {answer}");
        assert_eq!(field(&answer, "access-control-allow-origin"), "*", "{short:?}: {answer}");
        assert_eq!(field(&answer, "x-request-id").len(), 32, "{short:?}: {answer}");
        assert_eq!(field(&answer, "connection"), "close", "{short:?}: {answer}");
        if *expected != 431 {
            assert_eq!(field(&answer, "content-type"), "application/problem+json", "{short:?}: {answer}");
        }
        assert!(!answer.ends_with("\r\n\r\n"), "no body for {short:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{short:?}: {answer}");
        assert!(edge.metric(REFUSED) <= f64::from(count), "{short:?}");
    }
    assert!(edge.metric(REFUSED) >= (heads.len() - 3) as f64, "{}", edge.metric(REFUSED));
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
}

#[tokio::test]
async fn the_answer_comes_behind_those_to_the_requests_before_it() {
    let origin = Origin::fixed(200, "fine");
    let edge = Edge::before(&origin.url()).await;
    let good = "GET /good HTTP/1.1\r\nHost: h\r\n\r\n";
    // At once, and one after the other.
    let answer = edge.says(&format!("{good}{good}GET /<\u{3e} HTTP/1.1\r\nHost: h\r\n\r\n{good}")).await;
    let statuses: Vec<_> = answer.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answer}");
    let mut viewer = edge.viewer().await;
    viewer.says(good).await;
    assert_eq!(status(&viewer.head().await), 200);
    viewer.until("fine").await;
    viewer.says("HEAD /bad<path HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\n\r\n").await;
    let answer = viewer.rest().await.text;
    assert_eq!(status(&answer), 400, "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "HEAD has no body: {answer}");
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn a_broken_preface_is_not_answered_in_http_1() {
    let origin = Origin::fixed(200, "fine");
    let edge = Edge::before(&origin.url()).await;
    for (count, said) in (1..).zip([
        "INVALID CONNECTION PREFACE\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
        "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
    ]) {
        let answer = edge.says(said).await;
        assert!(!answer.contains("HTTP/1"), "{said:?}: {answer}");
        let cut = "iiif_mender_connections_cut_total{kind=\"preface\"}";
        crate::support::world::patiently("it is counted", || edge.metric(cut) == f64::from(count)).await;
    }
}

/// Says this over TLS, after an agreement on this protocol.
async fn says_after(
    edge: &Edge,
    made: &CertificateDer<'static>,
    alpn: &[&str],
    said: &str,
) -> (Option<Vec<u8>>, Vec<u8>) {
    let client = TlsClient { trusted: &[made], alpn, own: None };
    let mut tls = client.shakes(edge.address(), "one.test").await.expect("TLS");
    let agreed = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    tls.write_all(said.as_bytes()).await.expect("it is sent");
    let (mut all, patience) = (Vec::new(), std::time::Duration::from_secs(20));
    let _may_be_cut = tokio::time::timeout(patience, tls.read_to_end(&mut all)).await.expect("it ends");
    (agreed, all)
}

#[tokio::test]
async fn what_was_agreed_upon_is_spoken_and_nothing_else() {
    let origin = Origin::fixed(200, "fine");
    let folder = tempfile::tempdir().expect("a directory");
    let made = makes(folder.path(), "one", "one.test");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = \"one.pem\", key = \"one.key\" }}\n\
         [admin]\nlisten = \"off\"\nsetup_check = \"0s\"\n{}",
        route("/", &format!("{}/", origin.url()), "plain", "")
    );
    let edge = Edge::on(checked(folder.path(), &text, "")).await;
    let get = "GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n";
    for said in [get, "INVALID CONNECTION PREFACE\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"] {
        let (agreed, answer) = says_after(&edge, &made, &["h2"], said).await;
        assert_eq!(agreed.as_deref(), Some(&b"h2"[..]));
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(!text.contains("HTTP/1"), "{said:?}: {text}");
    }
    assert!(origin.seen().is_empty());
    let (agreed, answer) = says_after(&edge, &made, &["http/1.1"], get).await;
    assert_eq!(agreed.as_deref(), Some(&b"http/1.1"[..]));
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (_, answer) = says_after(&edge, &made, &["http/1.1"], preface).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    // Nothing was agreed upon: the first bytes tell.
    let (agreed, answer) = says_after(&edge, &made, &[], get).await;
    assert!(agreed.is_none() && answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}
