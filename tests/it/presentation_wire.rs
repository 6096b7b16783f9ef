//! Documents as they come over the wire: in every framing and coding, too long, by many readers at once.

use std::collections::BTreeSet;
use std::ops::Deref;

use futures_util::future::join_all;
use iiif_mender::index::sources::refresh::Refresh;
use serde_json::json;
use testbed::{Fetched, Flow, Origin};
use tokio::task::JoinHandle;

use crate::support::edge::Edge;
use crate::support::world::{checked, library_before, patiently};

/// A service that is an [`Origin`], with iiif-mender before it.
struct Wire {
    service: Origin,
    edge: Edge,
    folder: tempfile::TempDir,
}

impl Deref for Wire {
    type Target = Edge;

    fn deref(&self) -> &Edge {
        &self.edge
    }
}

impl Wire {
    async fn before(service: Origin, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let text = library_before(&service.url());
        let edge = Edge::on(checked(folder.path(), &text, more)).await;
        Self { service, edge, folder }
    }

    fn asks(&self, path: &str, fields: Vec<(&'static str, String)>) -> JoinHandle<Fetched> {
        let (client, url) = (self.client.clone(), self.url(path));
        tokio::spawn(async move {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            client.get(&url, &fields).await.expect("an answer")
        })
    }

    fn event(&self, kind: &str) -> f64 {
        self.metric(&format!(r#"iiif_mender_events_total{{kind="{kind}"}}"#))
    }

    fn learned(&self, kind: &str) -> f64 {
        self.metric(&format!(r#"iiif_mender_learned_total{{kind="{kind}"}}"#))
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// A manifest of one canvas, by the last segment of its path.
fn manifest(path: &str) -> Vec<u8> {
    let name = path.rsplit('/').next().unwrap_or(path);
    json!({ "@id": format!("https://lib.test/svc/{name}"), "@type": "sc:Manifest", "sequences": [{ "canvases": [{
        "@id": format!("https://lib.test/svc/canvas/{name}"), "@type": "sc:Canvas", "height": 9, "width": 9,
        "images": [{ "resource": { "service": { "@id": format!("https://lib.test/iiif/2/{name}"), "profile": "level2" } } }],
    }] }] })
    .to_string()
    .into_bytes()
}

#[tokio::test]
async fn a_document_is_learned_in_whatever_way_it_ends() {
    for http2 in [false, true] {
        let more = if http2 { "upstream.http2 = always" } else { "" };
        // Shared and held, held for nobody, and streaming by.
        for more in [
            more.to_owned(),
            format!(
                "{more}\npresentation.collapse = false\npresentation.watch = false\npresentation.repair = false"
            ),
        ] {
            let wire = Wire::before(
                Origin::start(|seen| {
                    let path = seen.path();
                    let flow = if path.ends_with("sized") {
                        Flow::sized(manifest(path))
                    } else {
                        Flow::chunked(manifest(path))
                    };
                    let flow = if path.ends_with("cut") { flow.cut_after(200) } else { flow };
                    Origin::answer(200, &[JSON], flow)
                }),
                &more,
            )
            .await;
            if http2 {
                wire.service.speaks_http2(10);
            }
            for name in ["sized", "chunked"] {
                assert_eq!(wire.get(&format!("/svc/{name}")).await.status, 200);
                patiently("it is learned", || !wire.app.index.owners(name).expect("an index").is_empty())
                    .await;
            }
            let cut = wire.client.get(&wire.url("/svc/cut"), &[]).await;
            assert!(cut.is_err() || cut.is_ok_and(|answer| answer.body.len() <= 200));
            let head = wire.client.head(&wire.url("/svc/head"), &[]).await.expect("an answer");
            assert_eq!(head.status, 200);
            // A document is counted behind its rows.
            patiently("both are counted", || wire.learned("learned") >= 2.0).await;
            assert_eq!((wire.learned("learned"), wire.learned("learn_unreadable")), (2.0, 0.0), "{more}");
        }
    }
}

#[tokio::test]
async fn a_document_is_learned_whatever_its_server_announces_and_nothing_else_is() {
    let kinds = ["", "text/plain", "text/json", "application/octet-stream", "Application/LD+JSON; profile=x"];
    let service = Origin::start(move |seen| {
        let at: usize = seen.path().rsplit('/').next().and_then(|name| name.parse().ok()).unwrap_or(0);
        let fields = [("content-type", kinds[at % 10])];
        let fields = if kinds[at % 10].is_empty() { &[][..] } else { &fields };
        let text = if at < 10 { manifest(seen.path()) } else { b"https://files.test/{a}".to_vec() };
        Origin::answer(200, fields, Flow::chunked(text))
    });
    let wire = Wire::before(service, "").await;
    for at in 0..4 {
        assert_eq!(wire.get(&format!("/svc/1{at}")).await.text(), "https://files.test/{a}");
    }
    for (at, kind) in kinds.iter().enumerate() {
        assert_eq!(wire.get(&format!("/svc/{at}")).await.status, 200);
        let name = at.to_string();
        let is_learned = || !wire.app.index.owners(&name).expect("an index").is_empty();
        patiently(kind, is_learned).await;
    }
    assert_eq!((wire.learned("learn_unreadable"), wire.event("json_hopeless")), (0.0, 0.0));
}

#[tokio::test]
async fn a_document_that_is_cut_is_counted_as_neither_long_nor_refused() {
    let service = Origin::start(|seen| {
        Origin::answer(200, &[JSON], Flow::chunked(manifest(seen.path())).cut_after(200))
    });
    let wire = Wire::before(service, "").await;
    let cut = wire.client.get(&wire.url("/svc/cut"), &[]).await;
    assert!(cut.is_err() || cut.is_ok_and(|answer| answer.body.len() <= 200));
    assert_eq!((wire.event("held_too_long"), wire.event("held_refused")), (0.0, 0.0));
}

#[tokio::test]
async fn a_document_that_is_too_long_is_counted() {
    let service = Origin::start(|seen| {
        let whole = [manifest(seen.path()), vec![b' '; 100_000]].concat();
        Origin::answer(
            200,
            &[JSON],
            if seen.path().ends_with("sized") { Flow::sized(whole) } else { Flow::chunked(whole) },
        )
    });
    let wire = Wire::before(service, "presentation.max_body = 64KiB").await;
    for (at, name) in ["sized", "chunked"].into_iter().enumerate() {
        assert!(wire.get(&format!("/svc/{name}")).await.body.len() > 100_000);
        let counted = |so_far: f64| so_far > at as f64;
        patiently("it is counted", || counted(wire.learned("learn_too_long"))).await;
        patiently("as not held, too", || counted(wire.event("held_too_long"))).await;
    }
    assert_eq!(wire.learned("learned"), 0.0);
}

fn service() -> Origin {
    Origin::start(|seen| {
        Origin::answer(200, &[JSON, ("vary", "Origin")], Flow::chunked(manifest(seen.path())))
    })
}

#[tokio::test]
async fn readers_that_differ_wait_for_the_first_only() {
    let wire = Wire::before(service(), "").await;
    wire.service.stalls();
    let readers: Vec<_> = (0..60)
        .map(|number| wire.asks("/svc/book", vec![("origin", format!("https://{number}.example"))]))
        .collect();
    wire.service.seen_at_least(1).await;
    // One more, so that all of them are surely on their way.
    let other = wire.asks("/svc/other", Vec::new());
    assert_eq!(wire.service.seen_at_least(2).await.len(), 2);
    wire.service.releases();
    for answer in join_all(readers).await {
        assert_eq!(answer.expect("it ends").status, 200);
    }
    assert_eq!(other.await.expect("it ends").status, 200);
    let asked = wire.service.seen().into_iter().filter(|seen| seen.path() == "/service/book");
    assert_eq!((asked.count(), wire.event("first_document_late")), (60, 0.0));
}

#[tokio::test]
async fn readers_that_differ_do_not_wait_for_the_first_for_ever() {
    let wire = Wire::before(service(), "heal.wait = 1s").await;
    wire.service.stalls();
    let readers: Vec<_> = (0..10)
        .map(|number| wire.asks("/svc/book", vec![("accept-language", format!("x-{number}"))]))
        .collect();
    wire.service.seen_at_least(10).await;
    assert_eq!(wire.event("first_document_late"), 9.0);
    wire.service.releases();
    for answer in join_all(readers).await {
        assert_eq!(answer.expect("it ends").status, 200);
    }
}

#[tokio::test]
async fn a_request_is_shared_however_many_documents_are_in_the_air() {
    let wire = Wire::before(service(), "presentation.max_flights = 1").await;
    wire.service.stalls();
    let mut readers = Vec::new();
    for name in ["one", "two", "three"] {
        readers.extend((0..20).map(|_| wire.asks(&format!("/svc/{name}"), Vec::new())));
        patiently("all have come", || wire.event("collapsed") >= (readers.len() - readers.len() / 20) as f64)
            .await;
    }
    assert_eq!(wire.service.seen_at_least(3).await.len(), 3);
    // Who carries the second document leaves: the next one takes it over.
    for at in [20, 21] {
        readers[at].abort();
    }
    wire.service.releases();
    let mut ended = 0;
    for (at, reader) in readers.into_iter().enumerate() {
        match reader.await {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{at}");
                ended += 1;
            }
            Err(left) => assert!(left.is_cancelled()),
        }
    }
    assert!(ended >= 58);
    let asked = wire.service.seen().iter().filter(|seen| seen.path().starts_with("/service/")).count();
    assert!((3..=5).contains(&asked), "{asked}");
}

#[tokio::test]
async fn an_answer_with_a_cookie_is_shared_and_its_cookie_is_not() {
    let service = Origin::start(|seen| {
        let fields = [JSON, ("vary", "Cookie, Origin"), ("set-cookie", "a=1"), ("set-cookie", "b=2")];
        Origin::answer(200, &fields, Flow::chunked(manifest(seen.path())))
    });
    let wire = Wire::before(service, "").await;
    wire.service.stalls();
    let readers: Vec<_> = (0..50).map(|_| wire.asks("/svc/book", Vec::new())).collect();
    patiently("they share", || wire.event("collapsed") >= 49.0).await;
    wire.service.releases();
    let answers: Vec<_> =
        join_all(readers).await.into_iter().map(|answer| answer.expect("it ends")).collect();
    assert!(answers.iter().all(|answer| answer.body == manifest("book")));
    let cookies = answers.iter().filter(|answer| answer.headers.contains_key("set-cookie"));
    assert_eq!(
        cookies.map(|answer| answer.headers.get_all("set-cookie").iter().count()).collect::<Vec<_>>(),
        [2]
    );
    let asked = || wire.service.seen().iter().filter(|seen| seen.path() == "/service/book").count();
    assert_eq!(asked(), 1);
    // Who has a cookie goes alone.
    wire.get_with("/svc/book", &[("cookie", "a=1")]).await;
    assert_eq!(asked(), 2);
}

/// A book of these pages.
fn book(pages: &[&str]) -> Vec<u8> {
    let canvas = |page: &&str| {
        let service = json!({ "@id": format!("https://lib.test/iiif/2/{page}"), "profile": "level2" });
        json!({ "@id": format!("https://lib.test/svc/canvas/{page}"), "@type": "sc:Canvas", "height": 9, "width": 9,
            "images": [{ "resource": { "service": service } }] })
    };
    let canvases: Vec<_> = pages.iter().map(canvas).collect();
    json!({ "@id": "https://lib.test/svc/book", "@type": "sc:Manifest", "sequences": [{ "canvases": canvases }] })
        .to_string()
        .into_bytes()
}

#[tokio::test]
async fn a_manifest_that_lacks_a_page_is_marked_and_never_stands_before_the_one_of_a_source() {
    for served in [&["a", "c"][..], &["a", "c", "new"]] {
        let wire = Wire::before(
            Origin::start(move |seen| match seen.path() {
                "/service/book" => Origin::answer(200, &[JSON], Flow::chunked(book(served))),
                _ => Origin::answer(404, &[], Flow::sized("not found")),
            }),
            "heal.wait = 1s",
        )
        .await;
        let file = wire.folder.path().join("book.json");
        std::fs::write(&file, book(&["a", "b", "c"])).expect("a file");
        let source = iiif_mender::config::settings::SourceSettings::path(file);
        let options = iiif_mender::index::sources::RefreshOptions::default();
        Refresh::new(&wire.app.index, &options).run(&[source], &mut |_, _| {}).expect("it is read");
        for _ in 0..2 {
            let came = wire.get("/svc/book").await;
            assert_eq!((came.status, came.header("cache-control")), (200, "no-store"), "{served:?}");
            assert_ne!(came.header("heal-status"), "", "{served:?}");
        }
        let is_read = || wire.learned("learn_poorer") + wire.learned("learned") >= 1.0;
        patiently("it was looked at", is_read).await;
        let known = wire.app.index.manifest_canvases("https://lib.test/svc/book").expect("an index");
        let known: BTreeSet<_> = known.into_iter().flat_map(|canvas| canvas.keys).collect();
        assert!(["a", "b", "c"].iter().all(|page| known.contains(*page)), "{served:?}: {known:?}");
        assert_eq!(known.contains("new"), served.contains(&"new"));
    }
}
