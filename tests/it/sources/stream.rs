//! IIIF Change Discovery: a stream of changes in place of a list of everything.

use super::*;

#[tokio::test]
async fn a_stream_of_changes_is_read_back_to_what_is_known() {
    let page = Arc::new(std::sync::Mutex::new(Vec::<Value>::new()));
    let newest = Arc::clone(&page);
    let origin = Origin::start(move |seen| {
        let here = here(seen);
        let change = |kind: &str, name: &str, day: u32| {
            json!({"type": kind, "object": {"id": format!("{here}/m/{name}"), "type": "Manifest"},
                   "endTime": format!("2026-01-{day:02}T00:00:00Z")})
        };
        match seen.path() {
            "/stream" => answer(&json!({"type": "OrderedCollection", "id": format!("{here}/stream"),
                "last": {"id": format!("{here}/page/1"), "type": "OrderedCollectionPage"}})),
            "/page/0" => answer(&json!({"type": "OrderedCollectionPage",
                "orderedItems": [change("Create", "a", 1), change("Create", "b", 2)]})),
            "/page/1" => {
                let mut items = vec![change("Update", "a", 3), change("Add", "c", 4)];
                for item in newest.lock().expect("no panic").iter() {
                    let (kind, name) = (item[0].as_str().expect("text"), item[1].as_str().expect("text"));
                    items.push(change(kind, name, 5));
                }
                answer(
                    &json!({"type": "OrderedCollectionPage", "prev": format!("{here}/page/0"), "orderedItems": items}),
                )
            }
            path => {
                let name = path.rsplit('/').next().expect("a name");
                answer(&manifest(name, &[name]))
            }
        }
    });
    let bench = Bench::new();
    let of = source(&origin, "/stream");
    let first = bench.refresh(&of).await;
    assert_eq!((first.manifests, first.problems.len()), (3, 0), "{:?}", first.problems);
    assert_eq!(targets(&origin), ["/m/a", "/m/b", "/m/c", "/page/0", "/page/1", "/stream"]);
    bench.refresh(&of).await;
    assert_eq!(origin.seen().len(), 8, "the stream and its newest page, nothing else");
    page.lock().expect("no panic").extend([json!(["Delete", "a"]), json!(["Update", "b"])]);
    let third = bench.refresh_with(&of, Duration::ZERO).await;
    assert_eq!((third.unchanged, third.vanished, third.dropped), (1, 1, 0));
    assert_eq!(origin.seen().len(), 11);
    assert_eq!((bench.owners("a").len(), bench.owners("c").len()), (1, 1));
    let built = bench.build(&of).await;
    assert_eq!(
        (built.vanished, built.problems.len()),
        (1, 0),
        "a build forgets nothing that is not mentioned"
    );
    assert_eq!(bench.refresh_with(&of, Duration::ZERO).await.dropped, 1);
    assert_eq!((bench.owners("a").len(), bench.owners("b").len(), bench.owners("c").len()), (0, 1, 1));
}
