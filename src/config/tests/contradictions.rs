//! Values that are fine one by one and not together.

use rstest::rstest;

use super::{ROUTES, bad, good, mistake};

#[rstest]
#[case("server.listen = []", "1:17: there is no address to listen on")]
#[case(
    "server.listen = ['0.0.0.0:80', '127.0.0.1:80']",
    "1:32: 127.0.0.1:80 is already taken by an address before it"
)]
#[case(
    "admin.listen = '127.0.0.1:8080'",
    "1:16: the admin listener 127.0.0.1:8080 and the public one 127.0.0.1:8080 are the same"
)]
#[case(
    "server.listen = '0.0.0.0:9090'",
    "1:17: the admin listener 127.0.0.1:9090 and the public one 0.0.0.0:9090 are the same"
)]
#[case("server.tls = { cert = 'a.pem' }", "1:14: `server.tls` needs both a certificate and its key")]
#[case("server.tls = { key = 'a.pem' }", "1:14: `server.tls` needs both a certificate and its key")]
#[case("server.max_head_bytes = '4KiB'", "1:25: request heads need at least 8KiB")]
#[case("server.max_uri_bytes = '65KiB'", "1:24: `server.max_uri_bytes` is more than `server.max_head_bytes`")]
#[case(
    "server.max_held_total = '1MiB'",
    "1:25: `presentation.max_body` is more than `server.max_held_total`"
)]
#[case("server.max_connections = 0", "1:26: `server.max_connections` is zero (write more than zero")]
#[case("upstream.connect_timeout = '0s'", "1:28: `upstream.connect_timeout` is zero")]
#[case(
    "heal.concurrency = 0",
    "1:20: `heal.concurrency` is zero (write more than zero; healing is switched off with"
)]
#[case("upstream.health = { failures = 0 }", "1:32: `upstream.health.failures` is zero")]
#[case("upstream.client_certificate = { cert = 'a.pem' }", "1:31: `upstream.client_certificate` needs both")]
#[case("heal.mass_expiry = { ids = 0 }", "1:28: `heal.mass_expiry.ids` is zero")]
#[case("heal.ladder = []", "1:15: healing is on, but its ladder has no rungs")]
#[case("heal.ladder = ['visit', 'visit']", "1:25: this rung stands in the ladder twice")]
#[case("admin.client_ca = 'ca.pem'", "1:19: without TLS nobody can show a certificate")]
#[case("heal.statuses = []", "1:17: healing is on, but no status means \"expired\"")]
#[case("heal.wait = '3m'", "1:13: `heal.wait` is longer than `heal.wait_info`")]
#[case(
    "heal.wait_info = '10s'",
    "1:18: `heal.wait` is longer than `heal.wait_info` (info.json is waited for"
)]
#[case("heal.timeout = '30s'", "1:16: `heal.wait_info` is longer than `heal.timeout`")]
#[case(
    "index.sources = [{ path = 'a', url = 'http://a.test/' }]",
    "1:18: this source has both a path and a URL"
)]
#[case("index.sources = [{}]", "1:18: this source has neither a path nor a URL")]
fn a_contradiction_is_refused_where_it_stands(#[case] text: &str, #[case] expected: &str) {
    let mistake = mistake(text);
    assert!(mistake.starts_with(&format!("config.toml:{expected}")), "{mistake}");
}

#[rstest]
#[case("", "1:1: there is no route, so every request would be refused (add at least one")]
#[case(
    "[[routes]]\nupstream = 'http://a.test/'",
    "1:1: this route has no `prefix` (write which paths belong here"
)]
#[case("[[routes]]\nprefix = '/'", "1:1: this route has no `upstream` (write where its requests go")]
#[case(
    "[[routes]]\nprefix = '/a/'\nupstream = 'http://a.test/a'",
    "3:12: `routes.0.prefix` ends with a slash and `routes.0.upstream` does not"
)]
#[case(
    "[[routes]]\nprefix = '/a'\nupstream = 'http://a.test'",
    "3:12: `routes.0.upstream` ends with a slash and `routes.0.prefix` does not"
)]
#[case(
    "[[routes]]\nprefix = '/'\nupstream = 'http://localhost:8080/'",
    "3:12: this route leads back to our own listener"
)]
#[case(
    "[[routes]]\nprefix = '/'\nupstream = 'http://a.test/'\nconnect = '127.0.0.1:8080'",
    "4:11: this route leads back to our own listener"
)]
#[case(
    "[[routes]]\nprefix = '/'\nupstream = 'http://a.test/'\nconnect = ['10.0.0.1:80', '127.0.0.1:8080']",
    "4:11: this route leads back to our own listener"
)]
#[case(
    "[[routes]]\nprefix = '/'\nupstream = 'http://a.test/'\nconnect = ['a:80', 'b:80', 'a:80']",
    "4:28: a:80 stands in the list twice"
)]
#[case(
    "[[routes]]\nprefix = '/'\nupstream = 'http://a.test/'\nfirst_byte_timeout = '0s'",
    "4:22: `routes.0.first_byte_timeout` is zero"
)]
#[case(
    "[[routes]]\nprefix = '/'\nupstream = 'http://a.test/'\nconnect = '10.0.0.1'",
    "4:11: `10.0.0.1` is not a host and port"
)]
#[case(
    "[[routes]]\nprefix = '/'\nupstream = 'http://a.test/'\nkind = 'image'",
    "4:8: images cannot be healed: no route leads to the canvas service (add a route with kind = \"presentation\""
)]
fn routes_that_cannot_work_are_refused(#[case] text: &str, #[case] expected: &str) {
    let mistakes = bad(text, &[]);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert!(mistakes[0].starts_with(&format!("config.toml:{expected}")), "{mistakes:?}");
}

#[test]
fn the_same_prefix_twice_is_refused_unless_the_hosts_differ() {
    let again = |hosts: &str, more: &str| {
        format!(
            "[[routes]]\nprefix = '/'\nupstream = 'http://a.test/'\nhosts = {hosts}\n[[routes]]\nprefix = '/'\nupstream = 'http://b.test/'\nhosts = {more}\n"
        )
    };
    let twice = bad(&again("[]", "[]"), &[]);
    assert!(twice[0].starts_with("config.toml:6:10: an earlier route has the same prefix `/`"), "{twice:?}");
    assert_eq!(bad(&again("['x.test', 'Y.test']", "['y.test']"), &[]).len(), 1);
    let settings = good(&again("[]", "['y.test']"), &[]);
    let last: Vec<_> = settings.routes.iter().skip(2).map(|route| route.hosts.clone()).collect();
    assert_eq!(last, [vec!["y.test".to_owned()], vec![]], "the narrower of two equal prefixes comes first");
}

#[test]
fn images_without_canvases_are_fine_where_nothing_asks_for_a_canvas() {
    let image = "[[routes]]\nprefix = '/'\nupstream = 'http://a.test/'\nkind = 'image'\n";
    for heal in ["[heal]\nenabled = false", "[heal]\nladder = ['direct']"] {
        assert!(super::load(&format!("{image}{heal}"), &[]).is_ok(), "{heal}");
    }
}

#[test]
fn port_zero_may_stand_twice() {
    let settings = good("server.listen = '127.0.0.1:0'\nadmin.listen = '127.0.0.1:0'", &[]);
    assert_eq!(settings.admin.listen, Some(settings.server.listen[0].address));
}

#[test]
fn longer_prefixes_come_first() {
    let settings = good("[[routes]]\nprefix = '/'\nupstream = 'http://a.test'\n", &[]);
    let prefixes: Vec<_> = settings.routes.iter().map(|route| route.prefix.as_str()).collect();
    assert_eq!(prefixes, ["/iiif-service/", "/iiif/2/", "/"]);
}

#[test]
fn names_are_lower_case_and_networks_are_networks() {
    let settings = good(
        "[server]\npublic_hosts = ['API.Library.TAMU.edu:443', 'dev.test:8080.', 'b.test.']\ntrusted_proxies = ['10.1.2.3/8', '::1']"
            .replace("8080.", "8080")
            .as_str(),
        &[],
    );
    assert_eq!(settings.server.public_hosts, ["api.library.tamu.edu", "dev.test:8080", "b.test"]);
    let networks: Vec<String> = settings.server.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "::1/128"]);
}

#[test]
fn relative_paths_begin_at_the_folder_of_the_file() {
    let text = "server.tls = { cert = 'tls/a.pem', key = '/run/a.key' }\nupstream.ca = 'ca.pem'\nindex.sources = [{ path = 'm/' }]\n";
    let settings = good(text, &[]);
    let tls = settings.server.tls.expect("both files are given");
    assert_eq!(tls.cert[0].to_str(), Some("/etc/mender/tls/a.pem"));
    assert_eq!(tls.key[0].to_str(), Some("/run/a.key"));
    assert_eq!(settings.upstream.ca.as_deref().and_then(std::path::Path::to_str), Some("/etc/mender/ca.pem"));
    assert_eq!(settings.index.path.to_str(), Some("/etc/mender/iiif-mender.sqlite3"));
    assert_eq!(settings.index.sources, [super::super::settings::SourceSettings::path("/etc/mender/m/")]);
    assert!(ROUTES.contains("routes"));
}
