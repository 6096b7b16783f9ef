//! Spans of sampled requests arrive at a collector; a collector that is down changes nothing.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use testbed::{Kind, Origin};

use crate::support::edge::Edge;
use crate::support::world::{World, patiently};

const TILE: &str = "0,0,512,512/512,/0/default.jpg";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string");
        text
    })
}

/// Every span that came to the collector.
pub(crate) fn spans(collector: &Origin) -> Vec<Span> {
    let of = |body: &[u8]| ExportTraceServiceRequest::decode(body).expect("an export request");
    let all = collector.seen().into_iter().flat_map(|seen| of(&seen.body).resource_spans);
    all.flat_map(|all| all.scope_spans).flat_map(|scope| scope.spans).collect()
}

pub(crate) fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn exporting(collector: &Origin) -> String {
    format!("telemetry.otlp = {}\ntelemetry.sample = 1\nserver.trusted_proxies = 127.0.0.1", collector.url())
}

#[tokio::test]
async fn a_healed_request_is_one_trace_with_its_rungs_and_who_waited_is_linked_to_it() {
    let collector = Origin::fixed(200, "");
    let more = format!("{}\nheal.ladder = visit\nheal.ahead = 0", exporting(&collector));
    let world = World::with(&more).await;
    let path = world.bed.page().image_path(TILE);
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let first = [("traceparent", PARENT), ("tracestate", "front=1")];
    let leader = world.get_with(&path, &first);
    let follower = async {
        patiently("the heal is on its way", || world.metric("iiif_mender_waiting_viewers") == 1.0).await;
        let all_wait = async {
            patiently("both wait", || world.metric("iiif_mender_waiting_viewers") == 2.0).await;
            world.bed.service.releases();
        };
        futures_util::future::join(world.get(&path), all_wait).await.0
    };
    let (leader, follower) = futures_util::future::join(leader, follower).await;
    assert_eq!((leader.status, follower.status), (200, 200));
    world.settles().await;
    patiently("both requests and the rung came", || {
        let all = spans(&collector);
        // The service's own request for info.json comes through us, too, and has a trace of its own.
        let of = |trace: &str| named(&all, "request").iter().any(|span| hex(&span.trace_id) == trace);
        of(&PARENT[3..35]) && of(follower.header("x-request-id")) && !named(&all, "visit").is_empty()
    })
    .await;
    let all = spans(&collector);
    let (ours, theirs): (Vec<Span>, Vec<Span>) =
        all.into_iter().partition(|span| hex(&span.trace_id) == PARENT[3..35]);

    let root = named(&ours, "request")[0];
    assert_eq!((hex(&root.parent_span_id).as_str(), root.trace_state.as_str()), (&PARENT[36..52], "front=1"));
    let below = |parent: &Span, name: &str| {
        named(&ours, name).into_iter().filter(|span| span.parent_span_id == parent.span_id).count()
    };
    for name in ["route", "index", "heal", "reply"] {
        assert_eq!(below(root, name), 1, "{name}: {ours:#?}");
    }
    assert!(below(root, "upstream") >= 1, "the first 404");
    let (heal, visit) = (named(&ours, "heal")[0], named(&ours, "visit"));
    assert_eq!(visit.len(), 1, "one for the rung's one request");
    assert_eq!(visit[0].parent_span_id, heal.span_id);
    assert_eq!(below(visit[0], "upstream"), 1);
    assert!(heal.links.is_empty(), "it leads");
    assert!(ours.iter().all(|span| span.end_time_unix_nano >= span.start_time_unix_nano));

    let waited = named(&theirs, "heal")[0];
    assert_eq!(hex(&waited.trace_id), follower.header("x-request-id"), "one search finds both");
    assert_eq!(waited.links.len(), 1);
    assert_eq!((&waited.links[0].trace_id, &waited.links[0].span_id), (&heal.trace_id, &heal.span_id));
    assert!(named(&theirs, "visit").is_empty());

    let request = named(&ours, "upstream").into_iter().find(|span| span.parent_span_id == visit[0].span_id);
    let onward = format!("{}{}-01", &PARENT[..36], hex(&request.expect("a request").span_id));
    let log = world.bed.service.ledger().log();
    let asked = log.iter().find(|asked| asked.kind == Kind::Visit).expect("a visit");
    assert_eq!(asked.headers.get("traceparent").expect("a parent"), &*onward, "it goes on below our span");
}

#[tokio::test]
async fn what_a_trusted_proxy_decided_holds_and_a_trace_begins_where_it_said_nothing() {
    let (collector, origin) = (Origin::fixed(200, ""), Origin::fixed(200, "fine"));
    let edge = Edge::with(&origin.url(), &exporting(&collector)).await;
    edge.get_with("/a", &[("traceparent", UNSAMPLED)]).await;
    let begun = edge.get("/b").await;
    patiently("the second came", || !named(&spans(&collector), "request").is_empty()).await;
    let seen = origin.seen();
    assert_eq!(seen[0].header("traceparent"), UNSAMPLED, "as it came");
    let onward = seen[1].header("traceparent");
    assert_eq!((&onward[3..35], &onward[53..]), (begun.header("x-request-id"), "01"));
    let all = spans(&collector);
    assert!(all.iter().all(|span| hex(&span.trace_id) == begun.header("x-request-id")), "{all:#?}");
    let request = named(&all, "request");
    assert_eq!((request.len(), request[0].parent_span_id.len()), (1, 0));
}

#[tokio::test]
async fn the_collector_is_asked_as_configured() {
    let (collector, origin) = (Origin::fixed(200, ""), Origin::fixed(200, "fine"));
    let more = format!(
        "telemetry.otlp = {}/tenant\ntelemetry.sample = 1\ntelemetry.headers.x-key = secret",
        collector.url()
    );
    let edge = Edge::with(&origin.url(), &more).await;
    edge.get("/").await;
    let seen = collector.seen_at_least(1).await;
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/tenant/v1/traces"));
    assert_eq!(seen[0].header("content-type"), "application/x-protobuf");
    assert_eq!(seen[0].header("x-key"), "secret");
}

#[tokio::test]
async fn a_collector_that_is_down_or_stuck_holds_nothing_up_and_what_is_lost_is_counted() {
    let (collector, origin) = (Origin::fixed(200, ""), Origin::fixed(200, "fine"));
    collector.stalls();
    let more = format!("{}\ntelemetry.queue = 4", exporting(&collector));
    let world = World::with(&more).await;
    let path = world.bed.page().image_path(TILE);
    assert_eq!(world.get(&path).await.status, 200);
    collector.seen_at_least(1).await;
    for _ in 0..10 {
        assert_eq!(world.get(&path).await.status, 200);
    }
    assert!(world.metric(r#"iiif_mender_spans_total{kind="dropped"}"#) > 0.0);

    collector.goes_down().await;
    let edge = Edge::with(&origin.url(), &exporting(&collector)).await;
    assert_eq!(edge.get("/").await.status, 200);
    patiently("the lost batch is counted", || {
        world.metric(r#"iiif_mender_spans_total{kind="failed"}"#) > 0.0
    })
    .await;
}
