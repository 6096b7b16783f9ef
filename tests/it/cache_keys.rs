//! What tells one answer in the cache from another: all that goes upstream. Whoever finds something that does not poisons it.

use rstest::rstest;
use testbed::{Flow, Origin};

use crate::support::cache_world::{INFO, TILE, cached, did};

/// An image server that writes into its answers what it was told of their name, and allows them to be kept.
fn reflecting() -> Origin {
    Origin::start(|seen| {
        let names = ["host", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-path"];
        let more = ["x-forwarded-id", "x-iiif-id", "x-original-url", "forwarded", "x-forwarded-prefix"];
        let told: Vec<_> = names.iter().chain(&more).map(|name| seen.header(name)).collect();
        let fields = [("cache-control", "max-age=60, public"), ("content-type", "application/json")];
        Origin::answer(200, &fields, Flow::sized(format!("{} {}", seen.target, told.join("|"))))
    })
}

const EVIL: &str = "evil.example";

/// What each stranger may say, and no other one may hear.
#[rstest]
#[case::host(&[("host", EVIL)])]
#[case::forwarded_host(&[("x-forwarded-host", EVIL)])]
#[case::two_forwarded_hosts(&[("x-forwarded-host", EVIL), ("x-forwarded-host", "b")])]
#[case::scheme(&[("x-forwarded-proto", EVIL)])]
#[case::port(&[("x-forwarded-port", EVIL)])]
#[case::path(&[("x-forwarded-path", EVIL)])]
#[case::prefix(&[("x-forwarded-prefix", EVIL)])]
#[case::identifier(&[("x-forwarded-id", EVIL)])]
#[case::other_identifier(&[("x-iiif-id", EVIL)])]
#[case::other_url(&[("x-original-url", EVIL)])]
#[case::forwarded(&[("forwarded", "host=evil.example")])]
#[case::underscores(&[("x_forwarded_host", EVIL)])]
#[case::taken_away(&[("connection", "x-forwarded-host"), ("x-forwarded-host", EVIL)])]
#[case::host_taken_away(&[("connection", "host"), ("host", EVIL)])]
#[tokio::test]
async fn nobody_gets_what_another_one_made_up(
    #[case] said: &[(&str, &str)],
    #[values(TILE, INFO)] path: &str,
    #[values(false, true)] by_a_trusted_proxy: bool,
) {
    let origin = reflecting();
    let more = if by_a_trusted_proxy { "server.trusted_proxies = 127.0.0.1" } else { "" };
    let edge = cached(&origin.url(), more).await;
    for _ in 0..2 {
        edge.get_with(path, said).await;
    }
    let victim = edge.get(path).await;
    assert!(!victim.text().contains(EVIL), "{}", victim.text());
    // Nor does one who makes something up get what others have, where that is another answer.
    let again = edge.get_with(path, said).await;
    let fresh = cached(&origin.url(), more).await;
    let alone = fresh.get_with(path, said).await.text();
    let (own, other) = (edge.address().to_string(), fresh.address().to_string());
    let (own_port, other_port) = (edge.address().port().to_string(), fresh.address().port().to_string());
    assert_eq!(again.text(), alone.replace(&other, &own).replace(&other_port, &own_port));
}

#[tokio::test]
async fn each_name_of_ours_has_answers_of_its_own() {
    let origin = reflecting();
    let edge = cached(&origin.url(), "").await;
    for host in ["a.example", "b.example", "A.example", "a.example:80"] {
        for did_so in ["fwd=uri-miss; stored", "hit"] {
            let answer = edge.get_with(INFO, &[("host", host)]).await;
            assert_eq!(did(&answer), did_so, "{host}");
            assert!(answer.text().contains(&format!("|{host}|")), "{}", answer.text());
        }
    }
    assert_eq!(origin.seen().len(), 4);
}

#[tokio::test]
async fn a_trusted_proxy_names_us_and_its_viewers_addresses_do_not_matter() {
    let origin = reflecting();
    let edge = cached(&origin.url(), "server.trusted_proxies = 127.0.0.1").await;
    let asks = async |host: &str, proto: &str, viewer: &str| {
        let fields = [
            ("x-forwarded-host", host),
            ("x-forwarded-proto", proto),
            ("x-forwarded-for", viewer),
            ("x-real-ip", viewer),
        ];
        edge.get_with(INFO, &fields).await
    };
    let first = asks("a.example", "https", "192.0.2.1").await;
    let second = asks("a.example", "https", "192.0.2.2").await;
    assert_eq!((did(&second), second.text()), ("hit", first.text()));
    assert_eq!(did(&asks("a.example", "http", "192.0.2.1").await), "fwd=uri-miss; stored");
    assert_eq!(did(&asks("b.example", "https", "192.0.2.1").await), "fwd=uri-miss; stored");
    // The same in one field.
    for (told, expected) in [
        ("for=192.0.2.1;host=c.example", "fwd=uri-miss; stored"),
        ("host=c.example;for=192.0.2.2", "hit"),
        ("for=192.0.2.1;host=d.example", "fwd=uri-miss; stored"),
    ] {
        assert_eq!(did(&edge.get_with(INFO, &[("forwarded", told)]).await), expected, "{told}");
    }
}

#[tokio::test]
async fn each_spelling_is_its_own_answer_because_it_goes_upstream_as_it_is() {
    let origin = reflecting();
    let edge = cached(&origin.url(), "").await;
    let paths = [
        TILE.to_owned(),
        format!("{TILE}?t=1"),
        format!("{TILE}?t=2"),
        format!("{TILE}?"),
        TILE.replace("page", "%70age"),
        TILE.replace("page-1", "page%2d1"),
        TILE.replace("page-1", "page%2D1"),
        TILE.replace("page-1", "PAGE-1"),
        TILE.replace("page-1", "page-1/"),
        TILE.replace("512/256,", "512/256,256"),
    ];
    for _ in 0..2 {
        for path in &paths {
            let answer = edge.get(path).await;
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.text().split(' ').next(), Some(path.as_str()));
        }
    }
    assert_eq!(origin.seen().len(), paths.len());
}

#[tokio::test]
async fn an_info_json_of_another_type_is_another_answer_though_the_server_does_not_say_so() {
    let origin = Origin::start(|seen| {
        let fields = [("cache-control", "max-age=60")];
        Origin::answer(200, &fields, Flow::sized(seen.header("accept").to_owned()))
    });
    let edge = cached(&origin.url(), "").await;
    let linked = "application/ld+json, */*;q=0.1";
    edge.get_with(INFO, &[("accept", linked)]).await;
    assert_eq!(edge.get_with(INFO, &[("accept", "*/*")]).await.text(), "*/*");
    assert_eq!(edge.get_with(INFO, &[("accept", linked)]).await.text(), linked);
}

#[tokio::test]
async fn two_routes_to_one_path_keep_their_answers_apart() {
    let (one, two) = (reflecting(), Origin::fixed(200, "two"));
    let edge = cached(&one.url(), "").await;
    let mut settings = (*edge.app.settings()).clone();
    edge.get(TILE).await;
    assert_eq!(did(&edge.get(TILE).await), "hit");
    let mut edge = edge;
    settings.routes[0].upstream.authority = two.address().to_string().parse().expect("an authority");
    edge.app.apply(settings).expect("it is in order");
    assert_eq!(edge.get(TILE).await.text(), "two", "another image server");
}
