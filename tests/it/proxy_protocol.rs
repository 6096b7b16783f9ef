//! PROXY headers: who is behind the proxy before us.

use testbed::Origin;

use crate::support::edge::{Edge, Viewer, status};

const TRUSTING: &str = "server.listen = 127.0.0.1:0 proxy_protocol\nserver.trusted_proxies = 127.0.0.1";

#[tokio::test]
async fn the_viewers_address_is_that_of_the_header_for_all_requests_of_the_connection() {
    let origin = Origin::fixed(200, "here");
    let edge = Edge::with(&origin.url(), TRUSTING).await;
    let v2 = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[203, 0, 113, 9, 10, 0, 0, 1, 1, 2, 3, 4]]
        .concat();
    for (header, expected) in [
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\n".to_vec(), "203.0.113.9"),
        (v2, "203.0.113.9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut viewer = edge.viewer().await;
        viewer.tries(&header).await.expect("it takes it");
        // What the viewer claims is not believed: the header's address is no trusted proxy.
        for _ in 0..2 {
            viewer.says("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
            viewer.until("here").await;
        }
        let seen = origin.seen();
        assert!(seen[seen.len() - 2..].iter().all(|seen| seen.header("x-forwarded-for") == expected));
    }
}

#[tokio::test]
async fn who_is_not_trusted_or_does_not_say_is_closed_and_counted() {
    let origin = Origin::fixed(200, "here");
    let edge = Edge::with(&origin.url(), &format!("{TRUSTING}\nserver.head_timeout = 300ms")).await;
    for said in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "PROXY TCP4 nobody\r\n", "PROXY TC", ""] {
        let mut viewer = edge.viewer().await;
        viewer.says(said).await;
        assert_eq!(viewer.rest().await.text, "", "{said:?}");
    }
    assert_eq!(edge.metric(r#"iiif_mender_connections_cut_total{kind="proxy_protocol"}"#), 4.0);
    let others = "server.listen = 127.0.0.1:0 proxy_protocol\nserver.trusted_proxies = 192.0.2.1";
    let edge = Edge::with(&origin.url(), others).await;
    let mut viewer = Viewer::to(edge.address()).await;
    viewer.says("PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(viewer.rest().await.text, "");
    assert_eq!(edge.metric(r#"iiif_mender_connections_cut_total{kind="proxy_protocol_untrusted"}"#), 1.0);
    assert_eq!(origin.seen().len(), 0);
    edge.is_alone().await;
}

#[tokio::test]
async fn without_the_word_a_header_is_a_bad_request() {
    let origin = Origin::fixed(200, "here");
    let edge = Edge::with(&origin.url(), "server.trusted_proxies = 127.0.0.1").await;
    let answer =
        edge.says("PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!((status(&answer), origin.seen().len()), (400, 0));
}
