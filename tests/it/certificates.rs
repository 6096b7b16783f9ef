//! Certificates that are renewed while connections are open, and chosen by name.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use testbed::Origin;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::edge::{Edge, Viewer, route};
use crate::support::tls::{TlsClient, makes};
use crate::support::world::checked;

/// Shakes hands, whoever it is.
async fn shakes(
    edge: &Edge,
    name: &str,
    trusted: &[&CertificateDer<'static>],
) -> Option<TlsStream<TcpStream>> {
    TlsClient { trusted, ..TlsClient::default() }.shakes(edge.address(), name).await
}

fn shown(tls: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let chain = tls.get_ref().1.peer_certificates().expect("certificates");
    chain[0].clone().into_owned()
}

async fn asks(tls: &mut TlsStream<TcpStream>) -> String {
    tls.write_all(b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n").await.expect("it takes it");
    let mut said = vec![0; 4096];
    let count = tls.read(&mut said).await.expect("an answer");
    String::from_utf8_lossy(&said[..count]).into_owned()
}

const PAIRS: &str = "server.tls = { cert = [\"one.pem\", \"two.pem\"], key = [\"one.key\", \"two.key\"] }";

fn text(origin: &Origin) -> String {
    let route = route("/", &format!("{}/", origin.url()), "plain", "");
    format!("[server]\nlisten = [\"127.0.0.1:0\", \"127.0.0.2:0 plain\"]\n[admin]\nlisten = \"off\"\n{route}")
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_and_drops_nobody() {
    let origin = Origin::fixed(200, "here");
    let folder = tempfile::tempdir().expect("a directory");
    let old = makes(folder.path(), "one", "one.test");
    let two = makes(folder.path(), "two", "two.test");
    let settings = || checked(folder.path(), &text(&origin), PAIRS);
    let mut edge = Edge::on(settings()).await;
    let mut kept = shakes(&edge, "one.test", &[&old, &two]).await.expect("TLS");
    assert_eq!(shown(&kept), old);
    assert!(asks(&mut kept).await.starts_with("HTTP/1.1 200"));
    assert_eq!(shown(&shakes(&edge, "two.test", &[&old, &two]).await.expect("TLS")), two);
    // The same file again, then a new one, then one that does not fit its key.
    let changes = edge.app.apply(settings()).expect("in order");
    assert!(changes.is_nothing());
    let new = makes(folder.path(), "one", "one.test");
    let changes = edge.app.apply(settings()).expect("in order");
    assert!(changes.certificates && changes.keys.is_empty());
    assert!(shakes(&edge, "one.test", &[&old]).await.is_none());
    assert_eq!(shown(&shakes(&edge, "one.test", &[&new]).await.expect("TLS")), new);
    std::fs::copy(folder.path().join("two.key"), folder.path().join("one.key")).expect("a file");
    let refused = edge.app.apply(settings()).expect_err("it does not fit").to_string();
    assert!(refused.contains("one.pem") && refused.contains("belong together"), "{refused}");
    assert_eq!(shown(&shakes(&edge, "one.test", &[&new]).await.expect("TLS")), new);
    assert!(asks(&mut kept).await.starts_with("HTTP/1.1 200"), "the first connection is still open");
}

#[tokio::test]
async fn one_address_speaks_tls_and_another_does_not() {
    let origin = Origin::fixed(200, "here");
    let folder = tempfile::tempdir().expect("a directory");
    let own = makes(folder.path(), "one", "one.test");
    makes(folder.path(), "two", "two.test");
    let edge = Edge::on(checked(folder.path(), &text(&origin), PAIRS)).await;
    assert!(shakes(&edge, "one.test", &[&own]).await.is_some());
    let mut viewer = Viewer::to(edge.app.addresses[1]).await;
    viewer.gets("/").await;
    viewer.until("here").await;
    let seen = origin.seen();
    assert_eq!(seen[0].header("x-forwarded-proto"), "http");
}

#[tokio::test]
async fn ipv4_and_ipv6_share_a_port_in_one_socket_or_in_two() {
    let origin = Origin::fixed(200, "here");
    let folder = tempfile::tempdir().expect("a directory");
    for listen in ["\"[::]:0\"", "[\"0.0.0.0:PORT\", \"[::]:PORT\"]"] {
        let free =
            std::net::TcpListener::bind("0.0.0.0:0").and_then(|free| free.local_addr()).expect("a port");
        let listen = listen.replace("PORT", &free.port().to_string());
        let route = route("/", &format!("{}/", origin.url()), "plain", "");
        let text = format!("[server]\nlisten = {listen}\n[admin]\nlisten = \"off\"\n{route}");
        let edge = Edge::on(checked(folder.path(), &text, "")).await;
        for host in ["127.0.0.1", "::1"] {
            let ip: std::net::IpAddr = host.parse().expect("an address");
            let mut viewer = Viewer::to((ip, edge.address().port()).into()).await;
            viewer.gets("/").await;
            viewer.until("here").await;
        }
        assert_eq!(edge.app.stop().await, 0);
    }
    let seen = origin.seen();
    let from: Vec<_> = seen.iter().map(|seen| seen.header("x-forwarded-for").to_owned()).collect();
    assert_eq!(from, ["127.0.0.1", "::1", "127.0.0.1", "::1"]);
}

/// An authority, and how it signs.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut wanted = CertificateParams::new([]).expect("parameters");
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(wanted, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A certificate of this authority, with its key.
fn operator(of: &CertifiedIssuer<'static, KeyPair>) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let wanted = CertificateParams::new(["operator".to_owned()]).expect("parameters");
    let signed = wanted.signed_by(&key, of).expect("a certificate");
    (signed.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
}

#[tokio::test]
async fn operators_show_a_certificate_or_a_token_and_others_see_the_probes_only() {
    let origin = Origin::fixed(200, "here");
    let folder = tempfile::tempdir().expect("a directory");
    let own = makes(folder.path(), "admin", "admin.test");
    let (ours, theirs) = (authority(), authority());
    std::fs::write(folder.path().join("ca.pem"), ours.pem()).expect("a file");
    std::fs::write(folder.path().join("token"), "a-token-that-is-long").expect("a file");
    let route = route("/", &format!("{}/", origin.url()), "plain", "");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\nclient_ca = \"ca.pem\"\n\
         token_file = \"token\"\ntls = {{ cert = \"admin.pem\", key = \"admin.key\" }}\n{route}"
    );
    let settings = || checked(folder.path(), &text, "");
    let mut edge = Edge::on(settings()).await;
    let admin = edge.app.admin.expect("an admin listener");
    let says = async |tls: Option<TlsStream<TcpStream>>, path: &str, field: &str| {
        let mut tls = tls.expect("TLS");
        let asked = format!("GET {path} HTTP/1.1\r\nHost: admin.test\r\n{field}\r\n");
        tls.write_all(asked.as_bytes()).await.expect("it takes it");
        let mut said = vec![0; 12];
        tls.read_exact(&mut said).await.expect("an answer");
        String::from_utf8_lossy(&said[9..]).into_owned()
    };
    let shows = async |trusted: &CertificateDer<'static>, own| {
        TlsClient { trusted: &[trusted], own, ..TlsClient::default() }.shakes(admin, "admin.test").await
    };
    let nobody = async || shows(&own, None).await;
    assert_eq!(says(nobody().await, "/api/v1/stats", "").await, "401");
    assert_eq!(says(nobody().await, "/livez", "").await, "200");
    let token = "Authorization: Bearer a-token-that-is-long\r\n";
    assert_eq!(says(nobody().await, "/api/v1/stats", token).await, "200");
    let known = shows(&own, Some(operator(&ours))).await;
    assert_eq!(says(known, "/api/v1/stats", "").await, "200");
    // In TLS 1.3 the refusal of a client's certificate comes behind the client's own last word.
    let stranger = shows(&own, Some(operator(&theirs))).await;
    if let Some(mut stranger) = stranger {
        let _sent = stranger.write_all(b"GET /api/v1/stats HTTP/1.1\r\nHost: admin.test\r\n\r\n").await;
        let mut said = Vec::new();
        let _ended = stranger.read_to_end(&mut said).await;
        assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
    let new = makes(folder.path(), "admin", "admin.test");
    assert!(edge.app.apply(settings()).expect("in order").certificates);
    assert_eq!(shown(&shows(&new, None).await.expect("TLS")), new);
}
