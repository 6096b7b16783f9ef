//! Which hosts are asked, with which fields and keys, and how many requests at once.

use super::*;

#[tokio::test]
async fn gzip_is_asked_for_and_unpacked_and_redirects_are_followed() {
    let origin = Origin::start(|seen| match seen.path() {
        "/a" => Origin::answer(301, &[("location", "/b?x=1")], Flow::sized("")),
        "/b" => Origin::answer(307, &[("location", "d/c")], Flow::sized("")),
        _ => {
            assert_eq!(seen.header("accept-encoding"), "gzip");
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed
                .write_all(manifest("a", &["a"]).to_string().as_bytes())
                .expect("a vector takes everything");
            let packed = packed.finish().expect("a vector takes everything");
            Origin::answer(200, &[("content-encoding", "gzip")], Flow::chunked(packed))
        }
    });
    let bench = Bench::new();
    let report = bench.refresh(&source(&origin, "/a")).await;
    assert_eq!((report.manifests, report.problems.len()), (1, 0), "{:?}", report.problems);
    assert_eq!(targets(&origin), ["/a", "/b?x=1", "/d/c"]);
}

#[tokio::test]
async fn other_hosts_are_asked_only_if_the_source_names_them_and_never_see_its_key() {
    let other = Origin::start(|_| answer(&manifest("o", &["o"])));
    let link = format!("{}/o", other.url());
    let origin = Origin::start(move |seen| {
        assert_eq!(seen.header("authorization"), "Bearer 1");
        answer(&json!({"@id": "c", "@type": "sc:Collection", "manifests": [link, format!("{link}2")]}))
    });
    let bench = Bench::new();
    let mut of = source(&origin, "/c?key=secret");
    of.headers.insert("authorization", "Bearer 1".parse().expect("a value"));
    let report = bench.refresh(&of).await;
    assert_eq!((report.problems.len(), other.seen().len()), (1, 0), "{:?}", report.problems);
    assert!(report.problems[0].hint.contains("`hosts`"), "{:?}", report.problems);
    assert!(!format!("{:?}", report.problems).contains("secret"), "{:?}", report.problems);
    of.hosts = vec![other.address().to_string()];
    assert_eq!(bench.refresh(&of).await.manifests, 2);
    assert!(other.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[tokio::test]
async fn a_key_in_a_query_is_told_nowhere_nor_that_of_a_page_further_on() {
    let origin = Origin::start(|seen| {
        let here = here(seen);
        match seen.path() {
            "/c" => answer(&json!({"@id": "c", "@type": "sc:Collection", "manifests": [
                format!("{here}/broken?key=secret"), format!("{here}/login?key=secret"),
                "http://elsewhere.test/x?key=secret"]})),
            "/login" => {
                let login = [("location", "http://login.test/?back=secret")];
                Origin::answer(302, &login, Flow::sized(""))
            }
            _ => Origin::answer(500, &[], Flow::sized("")),
        }
    });
    let report = Bench::new().refresh(&source(&origin, "/c?key=secret")).await;
    assert_eq!(report.problems.len(), 3, "{:?}", report.problems);
    assert!(!format!("{:?}", report.problems).contains("secret"), "{:?}", report.problems);
}

#[tokio::test]
async fn a_public_name_is_asked_for_where_its_route_leads_and_not_through_ourselves() {
    let origin = Origin::start(|_| answer(&manifest("a", &["a"])));
    let upstream = origin.url();
    let bench = Bench::with(|settings| {
        let text = format!(
            "server.public_hosts = ['api.library.tamu.edu']\n[[routes]]\nprefix = '/iiif-service/'\n\
            upstream = '{upstream}/inside/'\nkind = 'presentation'"
        );
        let none: [(&str, &str); 0] = [];
        *settings = Settings::from_text(Path::new("config.toml"), &text, none).expect("it is in order");
    });
    let of = SourceSettings {
        rate: 0,
        ..SourceSettings::url("https://api.library.tamu.edu/iiif-service/x/presentation/a?b=c")
    };
    assert_eq!(bench.refresh(&of).await.manifests, 1);
    assert_eq!(targets(&origin), ["/inside/x/presentation/a?b=c"]);
}

#[tokio::test]
async fn no_more_requests_run_at_once_than_the_source_allows() {
    let origin = Origin::start(|seen| match seen.path() {
        "/c" => {
            let all: Vec<String> = (0..12).map(|at| format!("{}/{at}", here(seen))).collect();
            answer(&json!({"@id": "c", "@type": "sc:Collection", "manifests": all}))
        }
        path => answer(&manifest(&path[1..], &[&path[1..]])),
    });
    let bench = Bench::new();
    let of = SourceSettings { concurrency: 3, ..source(&origin, "/c") };
    assert_eq!(bench.refresh(&of).await.manifests, 12);
    assert!(origin.connections() <= 3, "{}", origin.connections());
}
