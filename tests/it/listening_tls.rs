//! TLS, and HTTP/2 with and without it.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::CertificateDer;
use testbed::Origin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::listening::{LULL, parrot};
use crate::support::edge::{Edge, Viewer};
use crate::support::tls::{TlsClient, makes};

/// One request over HTTP/2.
async fn over_http2<I>(io: I, request: Request<Empty<Bytes>>) -> (u16, String)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await;
    let (mut sender, connection) = shaken.expect("HTTP/2");
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.version(), Version::HTTP_2);
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn ask(target: &str) -> http::request::Builder {
    Request::builder().uri(target)
}

#[tokio::test]
async fn http2_without_tls_is_understood_by_those_who_know() {
    let origin = parrot();
    let edge = Edge::with(&origin.url(), "server.max_head_bytes = 16KiB").await;
    let connect = || async { TcpStream::connect(edge.address()).await.expect("a connection") };
    let request = ask("http://iiif.example/a%2Fb?c").header("cookie", "a=1").header("cookie", "b=2");
    let answer = over_http2(connect().await, request.body(Empty::new()).expect("a request")).await;
    assert_eq!(answer, (200, "/a%2Fb?c".to_owned()));
    let seen = origin.seen();
    assert_eq!((seen[0].header("x-forwarded-host"), seen[0].header("cookie")), ("iiif.example", "a=1; b=2"));
    assert_eq!(seen[0].header("via"), "2.0 iiif-mender");
    let two_hosts = ask("http://iiif.example/").header("host", "other.example");
    assert_eq!(over_http2(connect().await, two_hosts.body(Empty::new()).expect("a request")).await.0, 400);
    let huge = ask("http://iiif.example/").header("x", "x".repeat(20_000));
    assert_eq!(over_http2(connect().await, huge.body(Empty::new()).expect("a request")).await.0, 431);
    assert_eq!(origin.seen().len(), 1);
    edge.is_alone().await;
}

/// An edge that speaks TLS, with its certificate.
async fn with_tls(origin: &Origin) -> (Edge, CertificateDer<'static>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a directory");
    let made = makes(folder.path(), "iiif", "iiif.example");
    let file = folder.path().join("iiif").display().to_string();
    let more = format!(
        "server.tls = {{ cert = \"{file}.pem\", key = \"{file}.key\" }}\nserver.head_timeout = 300ms"
    );
    (Edge::with(&origin.url(), &more).await, made, folder)
}

#[tokio::test]
async fn tls_speaks_http2_or_http1_as_agreed() {
    let origin = parrot();
    for (offered, agreed) in [(&["h2", "http/1.1"][..], &b"h2"[..]), (&["http/1.1"], b"http/1.1"), (&[], b"")]
    {
        let (edge, made, _folder) = with_tls(&origin).await;
        let client = TlsClient { trusted: &[&made], alpn: offered, own: None };
        let tls = client.shakes(edge.address(), "iiif.example").await.expect("TLS");
        assert_eq!(tls.get_ref().1.alpn_protocol().unwrap_or_default(), agreed);
        if agreed == b"h2" {
            let request = ask("https://iiif.example/two").body(Empty::new()).expect("a request");
            assert_eq!(over_http2(tls, request).await, (200, "/two".to_owned()));
        } else {
            let shaken = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await;
            let (mut sender, connection) = shaken.expect("HTTP/1.1");
            tokio::spawn(connection);
            let request = ask("/one").header("host", "iiif.example").body(Empty::<Bytes>::new());
            let request = request.expect("a request");
            for _ in 0..2 {
                let answer = sender.send_request(request.clone()).await.expect("an answer");
                assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_11));
                answer.into_body().collect().await.expect("a body");
                tokio::time::sleep(LULL).await;
            }
        }
    }
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| seen.header("x-forwarded-proto") == "https"));
    assert!(seen.iter().all(|seen| seen.header("x-forwarded-port") == "443"));
}

#[tokio::test]
async fn who_does_not_shake_hands_is_closed_in_time() {
    let origin = parrot();
    let (edge, _made, _folder) = with_tls(&origin).await;
    for said in ["", "\x16\x03\x01", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"] {
        let mut viewer = Viewer::to(edge.address()).await;
        viewer.says(said).await;
        assert!(!viewer.rest().await.text.contains("HTTP/1.1"));
    }
    assert_eq!(origin.seen().len(), 0);
    edge.is_alone().await;
}
