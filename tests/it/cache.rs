//! The cache: what is kept, for how long and for whom, and what goes out of it.

use http::Method;
use rstest::rstest;
use testbed::raw::{Peer, Step};
use testbed::{Fetched, Flow, Origin};

use crate::support::cache_world::{INFO, MINUTE, TILE, cached, counting, did};
use crate::support::edge::Edge;
use crate::support::world::{asks_until, patiently};

#[tokio::test]
async fn what_was_asked_for_once_comes_from_memory() {
    let origin = counting(MINUTE);
    let edge = cached(&origin.url(), "").await;
    for path in [TILE, INFO] {
        let (first, second) = (edge.get(path).await, edge.get(path).await);
        assert_eq!((did(&first), did(&second)), ("fwd=uri-miss; stored", "hit"), "{path}");
        assert_eq!((first.status, &first.body, first.header("age")), (200, &second.body, ""), "{path}");
        assert_eq!(second.status, 200);
        let same = ["content-type", "content-length", "cache-control", "etag", "date"];
        for name in same {
            assert_eq!(first.headers.get(name), second.headers.get(name), "{path}: {name}");
        }
        assert_eq!((second.header("age"), second.headers.get_all("via").iter().count()), ("0", 1));
        assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    }
    assert_eq!(origin.seen().len(), 2);
    let counted = |target: &str, result: &str| {
        edge.metric(&format!("iiif_mender_cache_requests_total{{target=\"{target}\",result=\"{result}\"}}"))
    };
    for target in ["image", "info"] {
        assert_eq!((counted(target, "miss"), counted(target, "hit")), (1.0, 1.0), "{target}");
    }
    assert_eq!(edge.metric("iiif_mender_cache_entries"), 2.0);
    assert_eq!(edge.metric("iiif_mender_cache_stored_total"), 2.0);
    assert_eq!(edge.metric("iiif_mender_cache_sent_bytes_total"), 16.0);
    assert!(edge.metric("iiif_mender_cache_bytes") > 16.0);
}

/// Asks twice; says whether the second answer came from memory.
async fn is_kept(
    answer: impl Fn() -> http::Response<Flow> + Send + Sync + 'static,
    asked: &[(&str, &str)],
) -> bool {
    let origin = Origin::start(move |_| answer());
    let edge = cached(&origin.url(), "").await;
    edge.get_with(TILE, asked).await;
    let second = edge.get_with(TILE, asked).await;
    assert_eq!(did(&second) == "hit", origin.seen().len() == 1, "{:?}", second.headers);
    did(&second) == "hit"
}

#[rstest]
#[case::max_age(200, "cache-control: max-age=9", true)]
#[case::no_cache_of_some_fields(200, "cache-control: max-age=9, no-cache=\"x\"", false)]
#[case::not_shared(200, "cache-control: max-age=9, s-maxage=0", false)]
#[case::not_found(404, "cache-control: max-age=9", false)]
#[case::gone(410, "cache-control: max-age=9", false)]
#[case::elsewhere(301, "cache-control: max-age=9\nlocation: /x", false)]
#[case::a_part(206, "cache-control: max-age=9\ncontent-range: bytes 0-2/9", false)]
#[case::broken(500, "cache-control: max-age=9", false)]
#[tokio::test]
async fn only_what_an_answer_allows_is_kept(
    #[case] status: u16,
    #[case] fields: &str,
    #[case] expected: bool,
) {
    let fields: Vec<(String, String)> = fields
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let answer = move || {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        Origin::answer(status, &fields, Flow::sized("a tile"))
    };
    assert_eq!(is_kept(answer, &[]).await, expected);
}

#[rstest]
#[case::who_shows_who_he_is(("authorization", "Basic x"), "max-age=9, public", false)]
#[case::a_cookie(("cookie", "a=b"), "max-age=9", false)]
#[case::a_cookie_and_an_answer_for_all(("cookie", "a=b"), "max-age=9, public", true)]
#[case::nothing_is_to_be_stored(("cache-control", "no-store"), "max-age=9, public", false)]
#[case::a_part(("range", "bytes=0-1"), "max-age=9, public", false)]
#[case::another_version(("if-none-match", "\"x\""), "max-age=9, public", false)]
#[tokio::test]
async fn only_what_was_asked_for_by_anybody_is_kept(
    #[case] asked: (&str, &str),
    #[case] told: &'static str,
    #[case] expected: bool,
) {
    let answer = move || Origin::answer(200, &[("cache-control", told)], Flow::sized("a tile"));
    assert_eq!(is_kept(answer, &[asked]).await, expected);
}

#[tokio::test]
async fn who_shows_who_he_is_gets_nothing_that_was_kept() {
    let origin = counting(&[("cache-control", "max-age=60")]);
    let edge = cached(&origin.url(), "").await;
    edge.get(TILE).await;
    for asked in [("authorization", "Bearer x"), ("cookie", "session=1")] {
        let own = edge.get_with(TILE, &[asked]).await;
        assert_ne!((did(&own), own.text().as_str()), ("hit", "answer 1"), "{asked:?}");
    }
    let other = edge.get(TILE).await;
    assert_eq!((did(&other), other.text().as_str()), ("hit", "answer 1"), "and nobody else gets theirs");
}

#[tokio::test]
async fn a_head_is_answered_by_what_a_get_brought_and_brings_nothing_itself() {
    let origin = counting(MINUTE);
    let edge = cached(&origin.url(), "").await;
    let head = || async { edge.client.head(&edge.url(TILE), &[]).await.expect("an answer") };
    assert_eq!(did(&head().await), "fwd=uri-miss");
    assert_eq!(did(&edge.get(TILE).await), "fwd=uri-miss; stored");
    let kept = head().await;
    assert_eq!(
        (kept.status, did(&kept), kept.header("content-length"), kept.body.len()),
        (200, "hit", "8", 0)
    );
}

#[tokio::test]
async fn parts_and_versions_come_from_memory() {
    let fields = &[
        ("cache-control", "max-age=60"),
        ("etag", "\"one\""),
        ("last-modified", "Sun, 22 Nov 2026 12:00:00 GMT"),
    ];
    let origin = counting(fields);
    let edge = cached(&origin.url(), "").await;
    edge.get(TILE).await;
    let part = |answer: &Fetched| (answer.status, answer.text(), answer.header("content-range").to_owned());
    for (range, status, text, told) in [
        ("bytes=0-3", 206, "answ", "bytes 0-3/8"),
        ("bytes=-2", 206, " 1", "bytes 6-7/8"),
        ("bytes=7-", 206, "1", "bytes 7-7/8"),
        ("bytes=0-18446744073709551615", 206, "answer 1", "bytes 0-7/8"),
        ("bytes=8-", 416, "", "bytes */8"),
        ("bytes=99999999999999999999999-", 416, "", "bytes */8"),
        ("bytes=0-1,3-4", 200, "answer 1", ""),
        ("bytes=x", 200, "answer 1", ""),
    ] {
        let answer = edge.get_with(TILE, &[("range", range)]).await;
        assert_eq!(part(&answer), (status, text.to_owned(), told.to_owned()), "{range}");
        assert_eq!(answer.header("content-length"), text.len().to_string(), "{range}");
        assert_eq!(did(&answer), "hit", "{range}");
    }
    let other = edge.get_with(TILE, &[("range", "bytes=0-3"), ("if-range", "\"two\"")]).await;
    assert_eq!(part(&other), (200, "answer 1".to_owned(), String::new()));
    for (name, value, status) in [
        ("if-none-match", "\"one\"", 304),
        ("if-none-match", "\"x\", W/\"one\"", 304),
        ("if-none-match", "\"two\"", 200),
        ("if-modified-since", "Sun, 22 Nov 2026 12:00:00 GMT", 304),
        ("if-modified-since", "Sun, 22 Nov 2026 11:59:59 GMT", 200),
    ] {
        let answer = edge.get_with(TILE, &[(name, value)]).await;
        assert_eq!((answer.status, did(&answer)), (status, "hit"), "{value}");
        assert_eq!(answer.header("etag"), "\"one\"");
        if status == 304 {
            assert_eq!((answer.body.len(), answer.header("content-type")), (0, ""), "{value}");
        }
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_condition_that_only_the_image_server_can_tell_goes_there() {
    let origin = counting(MINUTE);
    let edge = cached(&origin.url(), "").await;
    edge.get(TILE).await;
    for name in ["if-match", "if-unmodified-since"] {
        assert_eq!(did(&edge.get_with(TILE, &[(name, "\"one\"")]).await), "fwd=bypass", "{name}");
    }
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn each_variant_is_kept_beside_the_others() {
    let origin = counting(&[("cache-control", "max-age=60"), ("vary", "Accept, Accept-Language")]);
    let edge = cached(&origin.url(), "").await;
    let variants: [&[(&str, &str)]; 4] = [
        &[],
        &[("accept", "image/webp")],
        &[("accept", "image/webp"), ("accept-language", "de")],
        &[("accept", "image/webp, */*")],
    ];
    for _ in 0..2 {
        for (number, asked) in (1..).zip(variants) {
            assert_eq!(edge.get_with(TILE, asked).await.text(), format!("answer {number}"), "{asked:?}");
        }
    }
    // What `Vary` does not name selects nothing.
    let other = edge.get_with(TILE, &[("accept", "image/webp"), ("user-agent", "x")]).await;
    assert_eq!((other.text().as_str(), origin.seen().len()), ("answer 2", 4));
}

#[tokio::test]
async fn the_age_of_an_answer_is_what_it_had_and_what_it_became() {
    let origin = counting(&[("cache-control", "max-age=200"), ("age", "100")]);
    let edge = cached(&origin.url(), "").await;
    edge.get(TILE).await;
    let age: u64 = edge.get(TILE).await.header("age").parse().expect("a number");
    assert!((100..160).contains(&age), "{age}");
}

/// Asks until the cache did this.
async fn until(edge: &Edge, path: &str, wanted: &str) -> Fetched {
    asks_until(wanted, async || edge.get(path).await, |answer| did(answer) == wanted).await
}

const STALE: &str = "fwd=stale; detail=stale-if-error";

#[tokio::test]
async fn while_the_image_server_is_gone_each_tile_that_was_seen_is_there() {
    let origin = counting(&[("cache-control", "max-age=3600")]);
    let edge = cached(&origin.url(), "cache.max_age = 1s").await;
    let paths: Vec<_> =
        (0..20).map(|number| TILE.replace("0,0", &format!("{number},0"))).chain([INFO.to_owned()]).collect();
    for path in &paths {
        assert_eq!(did(&edge.get(path).await), "fwd=uri-miss; stored");
    }
    origin.goes_down().await;
    for (number, path) in (1..).zip(&paths) {
        let stale = until(&edge, path, STALE).await;
        assert_eq!((stale.status, stale.text()), (200, format!("answer {number}")));
        let range = edge.get_with(path, &[("range", "bytes=0-1")]).await;
        assert_eq!((range.status, range.text().as_str()), (206, "an"));
    }
    assert_eq!(edge.get("/iiif/2/page-1/full/9,/0/default.jpg").await.status, 502, "what was not seen");
    assert!(edge.metric("iiif_mender_cache_requests_total{target=\"image\",result=\"stale\"}") >= 20.0);
    origin.comes_up();
    assert_eq!(until(&edge, TILE, "fwd=stale; stored").await.status, 200);
}

#[tokio::test]
async fn a_tile_that_breaks_off_before_a_byte_went_out_goes_out_stale() {
    let told = "HTTP/1.1 200 OK\r\nCache-Control: max-age=1\r\nContent-Type: image/jpeg\r\nContent-Length: 6\r\n\r\n";
    let script = |body| vec![Step::ReadHead, Step::Write(format!("{told}{body}").into()), Step::Close];
    let peer = Peer::scripted(vec![script("a tile"), script("half")]).await;
    let edge = cached(&peer.url(), "").await;
    assert_eq!(did(&edge.get(TILE).await), "fwd=uri-miss; stored");
    let stale = until(&edge, TILE, STALE).await;
    assert_eq!((stale.status, stale.text().as_str()), (200, "a tile"));
}

#[rstest]
#[case::must_revalidate("max-age=1, must-revalidate", "")]
#[case::s_maxage("s-maxage=1", "")]
#[case::told("max-age=1, stale-if-error=0", "")]
#[case::configured("max-age=1", "cache.stale_if_error = 0s")]
#[tokio::test]
async fn nothing_stale_goes_out_where_that_is_not_allowed(#[case] told: &'static str, #[case] more: &str) {
    let origin =
        Origin::start(move |_| Origin::answer(200, &[("cache-control", told)], Flow::sized("a tile")));
    let edge = cached(&origin.url(), more).await;
    assert_eq!(edge.get(TILE).await.status, 200);
    origin.goes_down().await;
    asks_until("it is stale", async || edge.get(TILE).await.status, |status| *status != 200).await;
    assert_eq!(edge.get(TILE).await.status, 502);
}

#[tokio::test]
async fn a_fault_of_the_image_server_is_not_seen_and_its_answer_is_not_kept() {
    let status = std::sync::Arc::new(std::sync::atomic::AtomicU16::new(200));
    let told = std::sync::Arc::clone(&status);
    let origin = Origin::start(move |_| {
        let status = told.load(std::sync::atomic::Ordering::SeqCst);
        Origin::answer(status, &[("cache-control", "max-age=1")], Flow::sized(status.to_string()))
    });
    let edge = cached(&origin.url(), "").await;
    edge.get(TILE).await;
    for fault in [500, 502, 503, 504] {
        status.store(fault, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(until(&edge, TILE, STALE).await.text(), "200", "{fault}");
        assert_eq!(edge.get("/iiif/2/other/full/9,/0/default.jpg").await.status, fault);
    }
    // 404 is no fault: the tile is gone, here too.
    status.store(404, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(edge.get(TILE).await.status, 404);
    status.store(503, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(edge.get(TILE).await.status, 503);
}

#[rstest]
#[case(401)]
#[case(403)]
#[tokio::test]
async fn an_identifier_that_was_refused_to_anybody_is_kept_for_nobody(#[case] status: u16) {
    let origin = Origin::start(move |seen| {
        let status = if seen.path().contains("/max/") { status } else { 200 };
        Origin::answer(status, MINUTE, Flow::sized("a tile"))
    });
    let edge = cached(&origin.url(), "").await;
    let (kept, other) = (TILE.replace("page-1", "a%2Fb"), "/iiif/2/other/full/9,/0/default.jpg");
    let page = TILE.replace("page-1", "a%2Fb;2");
    for path in [&kept, &page, other] {
        edge.get(path).await;
        assert_eq!(did(&edge.get(path).await), "hit");
    }
    assert_eq!(edge.get("/iiif/2/a%2fb/full/max/0/default.jpg").await.status, status);
    for _ in 0..2 {
        assert_eq!(did(&edge.get(&kept).await), "fwd=uri-miss", "the same image, by another spelling");
        assert_eq!(did(&edge.get(&page).await), "fwd=uri-miss", "another page of the same file");
    }
    assert_eq!(did(&edge.get(other).await), "hit");
    patiently("what was kept of it is gone", || edge.metric("iiif_mender_cache_entries") == 1.0).await;
}

#[tokio::test]
async fn a_stranger_cannot_have_an_answer_made_anew_and_a_proxy_of_ours_can() {
    let asked: [&[(&str, &str)]; 3] =
        [&[("cache-control", "no-cache")], &[("pragma", "no-cache")], &[("cache-control", "max-age=0")]];
    let origin = counting(MINUTE);
    let edge = cached(&origin.url(), "").await;
    edge.get(TILE).await;
    for asked in asked {
        assert_eq!(did(&edge.get_with(TILE, asked).await), "hit", "{asked:?}");
    }
    let origin = counting(MINUTE);
    let edge = cached(&origin.url(), "server.trusted_proxies = 127.0.0.1").await;
    edge.get(TILE).await;
    for (number, asked) in (2..).zip(&asked[..2]) {
        assert_eq!(edge.get_with(TILE, asked).await.text(), format!("answer {number}"), "{asked:?}");
        let next = edge.get(TILE).await;
        assert_eq!(
            (did(&next), next.text()),
            ("hit", format!("answer {number}")),
            "it took the place of the old one"
        );
    }
    let through = [("cache-control", "no-cache"), ("x-forwarded-for", "192.0.2.7")];
    assert_eq!(did(&edge.get_with(TILE, &through).await), "hit", "a stranger behind a proxy of ours");
}

#[tokio::test]
async fn the_memory_is_bounded_and_what_is_asked_for_most_stays() {
    let origin = Origin::start(|_| Origin::answer(200, MINUTE, Flow::sized(vec![7; 16 << 10])));
    let edge = cached(&origin.url(), "cache.memory = 1MiB").await;
    let tile = |number: usize| TILE.replace("0,0", &format!("{number},0"));
    for number in 0..400 {
        edge.get(&tile(0)).await;
        edge.get(&tile(number)).await;
        if number % 50 == 0 {
            assert!(edge.metric("iiif_mender_cache_bytes") <= 1.1 * 1_048_576.0);
        }
    }
    assert!(edge.metric("iiif_mender_cache_entries") > 30.0, "{}", edge.metric("iiif_mender_cache_entries"));
    assert!(edge.metric("iiif_mender_cache_removed_total{cause=\"size\"}") > 300.0);
    assert_eq!(did(&edge.get(&tile(0)).await), "hit");
}

#[tokio::test]
async fn other_methods_and_other_routes_pass_by() {
    let origin = counting(MINUTE);
    let edge = cached(&origin.url(), "").await;
    edge.get(TILE).await;
    let options = edge.client.send(Method::OPTIONS, &edge.url(TILE), &[]).await.expect("an answer");
    assert_eq!(did(&options), "");
    for path in ["/iiif/2/page-1", "/iiif/2/page-1/nonsense"] {
        edge.get(path).await;
        assert_eq!(did(&edge.get(path).await), "", "{path}");
    }
}
