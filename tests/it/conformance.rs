//! HTTP/1.1 as RFC 9112 wants it: `tests/conformance/cases/*.toml`, and heads that come in pieces. For HTTP/2 there is
//! `tests/conformance/h2spec.sh`.

use crate::hostile::{before, cases, sends_all};
use crate::support::edge::{Edge, status};
use crate::support::recorder::Recorder;

#[tokio::test]
async fn every_requirement_is_met() {
    let cases = cases("tests/conformance/cases");
    assert!(cases.len() >= 40, "{}", cases.len());
    let recorder = Recorder::start().await;
    let edge = before(&recorder).await;
    let wrong = sends_all(&cases, &edge, &recorder).await;
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_head_that_is_cut_anywhere_is_waited_for_and_read_as_if_it_had_come_at_once() {
    let origin = testbed::Origin::fixed(200, "whole");
    let edge = Edge::before(&origin.url()).await;
    let head = "GET /hello HTTP/1.1\r\nHost: localhost\r\nX-Empty:\r\nConnection: close\r\n\r\n";
    for at in 1..head.len() {
        let mut viewer = edge.viewer().await;
        viewer.says(&head[..at]).await;
        // The first piece has been read before the second is sent: another viewer, who came later, is answered.
        if at % 16 == 0 {
            assert_eq!(edge.get("/between").await.text(), "whole");
        }
        viewer.says(&head[at..]).await;
        let answer = viewer.rest().await.text;
        assert_eq!(status(&answer), 200, "cut at {at}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "cut at {at}: {answer}");
    }
    let asked = origin.seen().iter().filter(|seen| seen.target == "/hello").count();
    assert_eq!(asked, head.len() - 1);
}
