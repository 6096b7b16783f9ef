//! Links of collections as generators write them, and answers that were not asked for.

use super::*;

#[tokio::test]
async fn links_are_read_against_the_url_of_their_collection() {
    let origin = Origin::start(|seen| match seen.path() {
        "/lib/top" => {
            let own = here(seen);
            let host = own.trim_start_matches("http:");
            answer(&json!({ "id": "c", "type": "Collection", "items": [
                { "id": "/lib/a", "type": "Manifest" },
                { "id": "b", "type": "Manifest" },
                { "id": format!("{host}/lib/c"), "type": "Manifest" },
                { "id": format!(" {own}/lib/d\n"), "type": "Manifest" },
                { "id": "./e?x=http://h", "type": "Manifest" },
                { "id": "urn:uuid:f", "type": "Manifest" },
            ] }))
        }
        path => {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            answer(&manifest(&name, &[&name]))
        }
    });
    let bench = Bench::new();
    let report = bench.refresh(&source(&origin, "/lib/top")).await;
    let problems = format!("{:?}", report.problems);
    assert!(report.problems.len() == 1 && problems.contains("urn:uuid:f"), "{problems}");
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(bench.owners(name).len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_304_that_was_not_asked_for_is_told_as_what_it_is() {
    let origin = Origin::start(|_| Origin::answer(304, &[], Flow::sized("")));
    let bench = Bench::new();
    let report = bench.refresh(&source(&origin, "/a")).await;
    assert_eq!(report.problems.len(), 1);
    assert!(report.problems[0].message.contains("304"), "{:?}", report.problems);
}

#[tokio::test]
async fn a_redirect_with_a_url_in_its_query_is_followed() {
    let origin = Origin::start(|seen| match seen.path() {
        "/old" => Origin::answer(302, &[("location", "/new?from=http://old.test/a")], Flow::sized("")),
        _ => answer(&manifest("a", &["a"])),
    });
    let bench = Bench::new();
    let report = bench.refresh(&source(&origin, "/old")).await;
    assert_eq!((report.problems, report.images), (Vec::new(), 1));
}

#[tokio::test]
async fn a_collection_has_as_many_pages_as_it_names_and_empty_ones_end() {
    let origin = Origin::start(|seen| {
        let here = here(seen);
        let page = |number: usize| format!("{here}/page/{number}");
        match seen.path().rsplit_once('/').expect("a path") {
            ("", "top") => answer(&json!({ "@id": "top", "@type": "sc:Collection", "first": page(1) })),
            ("/page", number) => {
                let number: usize = number.parse().expect("a number");
                let manifests = (number <= 40).then(|| format!("{here}/m/a{number}"));
                answer(&json!({ "@id": page(number), "@type": "sc:Collection",
                    "manifests": Vec::from_iter(manifests), "next": page(number + 1) }))
            }
            (_, name) => answer(&manifest(name, &[name])),
        }
    });
    let bench = Bench::new();
    let report = bench.refresh(&source(&origin, "/top")).await;
    // The pages behind the last one end at a depth, which is told.
    assert_eq!((report.problems.len(), report.images), (1, 40), "{:?}", report.problems);
    assert_eq!(bench.owners("a40").len(), 1);
    assert_eq!(targets(&origin).iter().filter(|target| target.starts_with("/page/")).count(), 56);
}
