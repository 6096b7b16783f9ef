use std::collections::VecDeque;

use http::{Method, Request, StatusCode};
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const TIMES: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    first_byte: Duration::from_secs(5),
    body: Duration::from_secs(5),
};

fn pair() -> (Http1Connection, DuplexStream) {
    let (ours, theirs) = duplex(1 << 20);
    (Http1Connection::new(Box::new(ours)), theirs)
}

fn head(method: Method) -> Parts {
    let request = Request::builder().method(method).uri("/a%2Fb?x=1").header("host", "a.test");
    request.body(()).expect("a request").into_parts().0
}

async fn rest(connection: &mut Http1Connection) -> Result<Vec<u8>, BodyError> {
    let mut whole = Vec::new();
    while let Some(piece) = poll_fn(|cx| connection.poll_body(cx)).await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole)
}

/// The end of an exchange: status, body, and whether the connection may be used again.
#[derive(Debug, PartialEq, Eq)]
enum Exchanged {
    Whole(u16, &'static str, bool),
    /// The head is fine, and the body breaks.
    Cut,
    /// No answer, for this reason.
    No(&'static str),
}

fn reason(failure: &SendFailure) -> &'static str {
    match failure {
        SendFailure::Unsent => "unsent",
        SendFailure::Stale => "stale",
        SendFailure::Ended => "ended",
        SendFailure::Late => "late",
        SendFailure::Viewer(_) => "viewer",
        SendFailure::Target => "target",
        SendFailure::Framing(_) => "framing",
        SendFailure::Broken(_) => "broken",
    }
}

async fn exchanged(method: Method, pieces: Vec<Vec<u8>>, closes: bool) -> Exchanged {
    let (mut connection, mut server) = pair();
    let (done, client_is_done) = tokio::sync::oneshot::channel::<()>();
    let serve = tokio::spawn(async move {
        let mut asked = vec![0; 1 << 16];
        let _ = server.read(&mut asked).await;
        for piece in pieces {
            let _ = server.write_all(&piece).await;
            tokio::task::yield_now().await;
        }
        // Without a close the server stays silent.
        if !closes {
            let _ = client_is_done.await;
        }
    });
    let answer = connection.send(&head(method), &mut Body::Empty, &TIMES).await;
    let exchanged = match answer {
        Err(failure) => Exchanged::No(reason(&failure)),
        Ok(answer) => match rest(&mut connection).await {
            Err(_) => Exchanged::Cut,
            Ok(body) => {
                assert!(connection.is_end_stream());
                let text = String::from_utf8(body).expect("text").leak();
                let is_kept = connection.mark_idle(Instant::now());
                Exchanged::Whole(answer.status().as_u16(), text, is_kept)
            }
        },
    };
    drop(done);
    serve.await.expect("the server");
    exchanged
}

#[rstest]
#[case::length("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", Exchanged::Whole(200, "ab", true))]
#[case::no_bytes("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Exchanged::Whole(200, "", true))]
#[case::chunks(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1;x=\"y\"\r\nc\r\n0\r\n\r\n",
    Exchanged::Whole(200, "abc", true)
)]
#[case::trailers(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: y\r\nz: 1\r\n\r\n",
    Exchanged::Whole(200, "ab", true)
)]
#[case::zeros(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0002\r\nab\r\n000\r\n\r\n",
    Exchanged::Whole(200, "ab", true)
)]
#[case::both(
    "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    Exchanged::Whole(200, "a", true)
)]
#[case::until_close("HTTP/1.1 200 OK\r\n\r\nab", Exchanged::Whole(200, "ab", false))]
#[case::old("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab", Exchanged::Whole(200, "ab", false))]
#[case::old_kept(
    "HTTP/1.0 200 OK\r\nconnection: x, Keep-Alive\r\ncontent-length: 1\r\n\r\na",
    Exchanged::Whole(200, "a", true)
)]
#[case::closing(
    "HTTP/1.1 200 OK\r\nconnection: x\r\nConnection: y , CLOSE\r\ncontent-length: 1\r\n\r\na",
    Exchanged::Whole(200, "a", false)
)]
#[case::more_than_told("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", Exchanged::Whole(200, "a", false))]
#[case::interim(
    "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\ncontent-length: 1\r\n\r\na",
    Exchanged::Whole(404, "a", true)
)]
#[case::not_modified("HTTP/1.1 304 x\r\ncontent-length: 9\r\n\r\n", Exchanged::Whole(304, "", true))]
#[case::no_content("HTTP/1.1 204 x\r\n\r\n", Exchanged::Whole(204, "", true))]
#[case::bare_lf("HTTP/1.1 200 OK\ncontent-length: 1\n\na", Exchanged::Whole(200, "a", true))]
#[case::the_same_length_twice(
    "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\nContent-Length: 2\r\n\r\nab",
    Exchanged::Whole(200, "ab", true)
)]
#[case::two_lengths(
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nab",
    Exchanged::No("framing")
)]
#[case::signed("HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nab", Exchanged::No("framing"))]
#[case::too_long_a_length(
    "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\nab",
    Exchanged::No("framing")
)]
#[case::gzip(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    Exchanged::No("framing")
)]
#[case::two_codings(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    Exchanged::No("framing")
)]
#[case::old_chunks("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Exchanged::No("broken"))]
#[case::cut("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", Exchanged::Cut)]
#[case::cut_in_a_chunk("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab", Exchanged::Cut)]
#[case::cut_behind_a_chunk(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
    Exchanged::Cut
)]
#[case::cut_in_the_trailers(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n",
    Exchanged::Cut
)]
#[case::no_size("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\nab\r\n0\r\n\r\n", Exchanged::Cut)]
#[case::a_signed_size(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+2\r\nab\r\n0\r\n\r\n",
    Exchanged::Cut
)]
#[case::a_prefixed_size(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n",
    Exchanged::Cut
)]
#[case::a_huge_size(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\nab",
    Exchanged::Cut
)]
#[case::a_spaced_size(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2 3\r\nab\r\n0\r\n\r\n",
    Exchanged::Cut
)]
#[case::a_size_that_lies(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    Exchanged::Cut
)]
#[case::a_bare_lf_in_chunks(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\nab\n0\n\n",
    Exchanged::Cut
)]
#[case::a_cr_in_an_extension(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;\rx\r\nab\r\n0\r\n\r\n",
    Exchanged::Cut
)]
#[case::nothing("", Exchanged::No("stale"))]
#[case::half_a_head("HTTP/1.1 200 OK\r\nx: ", Exchanged::No("ended"))]
#[case::interim_only("HTTP/1.1 103 x\r\n\r\n", Exchanged::No("ended"))]
#[case::no_http("SSH-2.0-x\r\n\r\n", Exchanged::No("broken"))]
#[case::a_space_in_a_name("HTTP/1.1 200 OK\r\nx y: z\r\n\r\n", Exchanged::No("broken"))]
#[case::a_space_behind_a_name("HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nab", Exchanged::No("broken"))]
#[case::a_folded_line("HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\r\n", Exchanged::No("broken"))]
#[case::a_cr_in_a_value("HTTP/1.1 200 OK\r\nx: y\rz: 1\r\n\r\n", Exchanged::No("broken"))]
#[case::a_nul("HTTP/1.1 200 OK\r\nx: \0\r\n\r\n", Exchanged::No("broken"))]
#[case::another_version("HTTP/2.0 200 OK\r\n\r\n", Exchanged::No("broken"))]
#[case::no_status("HTTP/1.1 20 OK\r\n\r\n", Exchanged::No("broken"))]
#[case::a_low_status("HTTP/1.1 099 OK\r\n\r\n", Exchanged::No("broken"))]
#[tokio::test]
async fn an_answer_is_read_alike_whole_and_byte_by_byte(#[case] answer: &str, #[case] expected: Exchanged) {
    let whole = vec![answer.as_bytes().to_vec()];
    assert_eq!(exchanged(Method::GET, whole, true).await, expected, "whole");
    let bytes = answer.bytes().map(|byte| vec![byte]).collect();
    let found = exchanged(Method::GET, bytes, true).await;
    // Bytes behind the body may come too late to be seen: the pool checks once more before the next request.
    match (&found, &expected) {
        (Exchanged::Whole(status, body, _), Exchanged::Whole(other, expected, _)) => {
            assert_eq!((status, body), (other, expected), "byte by byte");
        }
        _ => assert_eq!(found, expected, "byte by byte"),
    }
}

#[rstest]
#[case::head(Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", Exchanged::Whole(200, "", true))]
#[case::head_of_chunks(
    Method::HEAD,
    "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n",
    Exchanged::Whole(200, "", true)
)]
#[case::whole(
    Method::GET,
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab",
    Exchanged::Whole(200, "ab", true)
)]
#[case::last_chunk(
    Method::GET,
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    Exchanged::Whole(200, "ab", true)
)]
#[tokio::test]
async fn the_end_is_known_without_a_close(
    #[case] method: Method,
    #[case] answer: &str,
    #[case] expected: Exchanged,
) {
    assert_eq!(exchanged(method, vec![answer.as_bytes().to_vec()], false).await, expected);
}

#[rstest]
#[case::one_line(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(READ_BUFFER)), "broken")]
#[case::many_fields(format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101)), "broken")]
#[case::interim_for_ever("HTTP/1.1 102 x\r\n\r\n".repeat(40), "broken")]
#[tokio::test]
async fn a_head_has_an_end(#[case] answer: String, #[case] expected: &'static str) {
    let found = exchanged(Method::GET, vec![answer.into_bytes()], false).await;
    assert_eq!(found, Exchanged::No(expected));
}

#[rstest]
#[case::a_size_line(format!("2;{}", "x".repeat(4096)))]
#[case::extensions(format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "x".repeat(1000)).repeat(20)))]
#[case::trailers(format!("0\r\n{}", "x: y\r\n".repeat(4096)))]
#[tokio::test]
async fn what_stands_between_chunks_has_an_end(#[case] chunks: String) {
    let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
    assert_eq!(exchanged(Method::GET, vec![answer.into_bytes()], false).await, Exchanged::Cut);
}

#[tokio::test]
async fn one_connection_carries_one_request_after_the_other() {
    let (mut connection, mut server) = pair();
    for number in 0..200 {
        let body = "x".repeat(number * 7);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        server.write_all(answer.as_bytes()).await.expect("written");
        let sent = connection.send(&head(Method::GET), &mut Body::Empty, &TIMES).await.expect("an answer");
        assert_eq!(sent.status(), StatusCode::OK);
        assert_eq!(rest(&mut connection).await.expect("a body"), body.as_bytes());
        assert!(connection.mark_idle(Instant::now()));
        assert!(!connection.is_closed());
    }
    drop(server);
    assert!(connection.is_closed());
}

#[tokio::test]
async fn an_idle_connection_that_speaks_is_closed() {
    let (mut connection, mut server) = pair();
    assert!(!connection.is_closed());
    server.write_all(b"HTTP/1.1 408 Timeout\r\n\r\n").await.expect("written");
    assert!(connection.is_closed());
}

#[rstest]
#[case::known(Some("4"), Body::Full(Bytes::from_static(b"abcd")), "content-length: 4\r\n\r\nabcd")]
#[case::length_of_the_body(None, Body::Full(Bytes::from_static(b"abcd")), "content-length: 4\r\n\r\nabcd")]
#[case::chunks(
    None,
    Body::Chain(VecDeque::from([Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")]), Box::new(Body::End)),
    "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
)]
#[tokio::test]
async fn a_body_goes_up_and_the_connection_may_be_used_again(
    #[case] stated: Option<&str>,
    #[case] mut body: Body,
    #[case] expected: &'static str,
) {
    let (mut connection, mut server) = pair();
    let mut head = head(Method::POST);
    if let Some(length) = stated {
        head.headers.insert("content-length", length.parse().expect("a value"));
    }
    let serve = tokio::spawn(async move {
        let (mut asked, mut piece) = (String::new(), [0; 512]);
        while !asked.ends_with(expected) {
            let size = server.read(&mut piece).await.expect("read");
            assert_ne!(size, 0, "{asked}");
            asked.push_str(std::str::from_utf8(piece.get(..size).expect("a piece")).expect("text"));
        }
        server.write_all(b"HTTP/1.1 204 x\r\n\r\n").await.expect("written");
        server
    });
    connection.send(&head, &mut body, &TIMES).await.expect("an answer");
    let _server = serve.await.expect("the server");
    assert!(connection.mark_idle(Instant::now()));
}

#[tokio::test]
async fn what_a_head_says_of_its_body_is_not_believed() {
    let mut head = head(Method::GET);
    head.headers.insert("content-length", "40".parse().expect("a value"));
    head.headers.insert("transfer-encoding", "chunked".parse().expect("a value"));
    let mut written = Vec::new();
    head::write(&mut written, &head, RequestFraming::Bodyless);
    let written = String::from_utf8(written).expect("text");
    assert_eq!(written, "GET /a%2Fb?x=1 HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n");
}

#[tokio::test]
async fn a_request_that_was_not_written_keeps_its_body() {
    let (mut connection, server) = pair();
    drop(server);
    let mut body = Body::Full(Bytes::from_static(b"abcd"));
    let failed = connection.send(&head(Method::POST), &mut body, &TIMES).await;
    assert!(matches!(failed, Err(SendFailure::Unsent)), "{failed:?}");
    assert_eq!(body.collect(9).await.expect("the body"), "abcd");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_has_its_time() {
    let (mut connection, _server) = pair();
    let failed = connection.send(&head(Method::GET), &mut Body::Empty, &TIMES).await;
    assert!(matches!(failed, Err(SendFailure::Late)), "{failed:?}");
    assert!(connection.is_awaited());
}

#[tokio::test]
async fn an_early_answer_is_read_while_the_body_still_goes_up() {
    let (ours, mut server) = duplex(1024);
    let mut connection = Http1Connection::new(Box::new(ours));
    let mut body = Body::Full(Bytes::from(vec![b'x'; 1 << 20]));
    server.write_all(b"HTTP/1.1 413 Too Long\r\ncontent-length: 2\r\n\r\nno").await.expect("written");
    let answer = connection.send(&head(Method::POST), &mut body, &TIMES).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(rest(&mut connection).await.expect("a body"), b"no");
    assert!(!connection.mark_idle(Instant::now()), "the server still expects the rest");
}

#[tokio::test]
async fn an_answer_before_the_whole_head_was_sent_ends_the_connection() {
    let (ours, mut server) = duplex(64);
    let mut connection = Http1Connection::new(Box::new(ours));
    let mut head = head(Method::GET);
    head.headers.insert("x-long", "x".repeat(1000).parse().expect("a value"));
    server.write_all(b"HTTP/1.1 431 x\r\ncontent-length: 0\r\n\r\n").await.expect("written");
    let answer = connection.send(&head, &mut Body::Empty, &TIMES).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert!(!connection.mark_idle(Instant::now()), "the server still reads the head");
}

#[tokio::test]
async fn a_tunnel_begins_with_what_came_behind_the_answer() {
    let (mut connection, mut server) = pair();
    server.write_all(b"HTTP/1.1 101 x\r\nupgrade: echo\r\n\r\nhello").await.expect("written");
    let answer = connection.send(&head(Method::GET), &mut Body::Empty, &TIMES).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let (_stream, came) = connection.into_stream().expect("the stream");
    assert_eq!(came, "hello");
}
