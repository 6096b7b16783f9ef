//! Tests of what is accepted, and of what becomes of it.

use super::good;

#[test]
fn the_narrower_of_two_equal_prefixes_comes_first() {
    let text = "[[routes]]\nprefix = '/'\nupstream = 'http://a.test/'\n\
                [[routes]]\nprefix = '/'\nupstream = 'http://b.test/'\nhosts = ['y.test']\n";
    let settings = good(text, &[]);
    let last: Vec<_> = settings.routes.iter().skip(2).map(|route| route.hosts.clone()).collect();
    assert_eq!(last, [vec!["y.test".to_owned()], vec![]]);
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
    let text = "[server]\npublic_hosts = ['API.Library.TAMU.edu:443', 'dev.test:8080', 'b.test.']\n\
                trusted_proxies = ['10.1.2.3/8', '::1']";
    let settings = good(text, &[]);
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
}
