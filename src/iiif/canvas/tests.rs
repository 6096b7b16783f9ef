use proptest::prelude::*;
use rstest::rstest;

use super::*;

const CANVAS: &str = "https://api.example.org/iiif-service/fedora/canvas/3b/6f/pages/page_0";

#[rstest]
#[case::plain(CANVAS, "/iiif-service/fedora/canvas/3b/6f/pages/page_0")]
#[case::query_belongs_to_it("http://h/canvas/a?page=2", "/canvas/a?page=2")]
#[case::fragment_is_dropped("http://h/canvas/a?page=2#xywh=0,0,1,1", "/canvas/a?page=2")]
#[case::question_mark_in_fragment("http://h/canvas/a#b?c", "/canvas/a")]
#[case::escapes_stay("http://h/canvas/a%20b/%C3%A9;x", "/canvas/a%20b/%C3%A9;x")]
#[case::double_slashes_stay("http://h//canvas//a", "//canvas//a")]
#[case::empty_query("http://h/a?", "/a?")]
#[case::no_path("http://h", "/")]
#[case::no_path_but_query("http://h?a", "/?a")]
#[case::scheme_in_capitals("HTTP://h/a", "/a")]
#[case::ipv6("http://[::1]:8080/a", "/a")]
fn a_visit_asks_for_path_and_query_as_written(#[case] url: &str, #[case] visit: &str) {
    assert_eq!(CanvasUrl::parse(url).unwrap().visit_target(), visit);
}

#[rstest]
#[case("http://h/a", "/a?update=true")]
#[case("http://h/a?", "/a?update=true")]
#[case("http://h/a?page=2", "/a?page=2&update=true")]
#[case("http://h/a?allow=image/jpeg", "/a?allow=image/jpeg&update=true")]
#[case("http://h/a?update=true", "/a?update=true")]
#[case("http://h/a?page=1&update", "/a?page=1&update=true")]
#[case("http://h/a?update=&page=1", "/a?page=1&update=true")]
#[case("http://h/a?update=1", "/a?update=true")]
#[case("http://h/a?%75pdate=true&page=1", "/a?page=1&update=true")]
#[case("http://h/a?noupdate=true", "/a?noupdate=true&update=true")]
fn a_rebuild_says_update_once(#[case] url: &str, #[case] rebuild: &str) {
    assert_eq!(CanvasUrl::parse(url).unwrap().rebuild_target(), rebuild);
}

#[rstest]
#[case::other_scheme("ftp://h/a")]
#[case::file("file:///etc/passwd")]
#[case::relative("/canvas/a")]
#[case::scheme_relative("//h/a")]
#[case::urn("urn:canvas:1")]
#[case::userinfo("http://user@h/a")]
#[case::userinfo_and_password("http://api.example.org:80@evil.example/a")]
#[case::userinfo_before_query("http://h@evil.example?a")]
#[case::backslash_in_host("http://evil.example\\@h/a")]
#[case::backslash_in_path("http://h/a\\..\\b")]
#[case::space("http://h/a b")]
#[case::newline("http://h/a\r\nHost: x")]
#[case::nul("http://h/a\0")]
#[case::not_ascii("http://h/café")]
#[case::host_not_ascii("http://ｈ/a")]
#[case::no_host("http:///a")]
#[case::only_a_port("http://:80/a")]
#[case::empty_port("http://h:/a")]
#[case::port_too_large("http://h:65536/a")]
#[case::port_with_sign("http://h:+80/a")]
#[case::host_with_escape("http://h%2e/a")]
#[case::broken_ipv6("http://[::1/a")]
#[case::bare_ipv6("http://::1/a")]
#[case::no_ipv6("http://[evil]/a")]
#[case::leading_space(" http://h/a")]
#[case::empty("")]
fn everything_else_is_refused(#[case] url: &str) {
    assert_eq!(CanvasUrl::parse(url), None);
}

#[rstest]
#[case("http://h/a/../b", true)]
#[case("http://h/a/.", true)]
#[case("http://h/..", true)]
#[case("http://h/a/%2e%2E/b", true)]
#[case("http://h/a/.%2e/b", true)]
#[case("http://h/a/..;x=1/b", true)]
#[case("http://h/a/..%3Bx/b", true)]
#[case("http://h/a%2F..%2fb", true)]
#[case("http://h/a%5c..%5Cb", true)]
#[case("http://h/a/...", false)]
#[case("http://h/a..b/.well-known/c.", false)]
#[case("http://h/a?b=/../c", false)]
fn dot_segments_are_seen_in_every_disguise(#[case] url: &str, #[case] has: bool) {
    assert_eq!(CanvasUrl::parse(url).unwrap().has_dot_segments(), has);
}

#[rstest]
#[case("https://API.Example.org/a", "api.example.org", true)]
#[case("https://api.example.org:443/a", "api.example.org", true)]
#[case("https://api.example.org/a", "API.example.org:443", true)]
#[case("http://api.example.org:443/a", "api.example.org", false)]
#[case("http://api.example.org:8080/a", "api.example.org:8080", true)]
#[case("http://api.example.org:8080/a", "api.example.org", false)]
#[case("http://[::1]/a", "[::1]:80", true)]
#[case("http://api.example.org.evil.example/a", "api.example.org", false)]
#[case("http://h/a", "", false)]
#[case("http://h/a", "user@h", false)]
fn hosts_are_compared_without_case_and_default_port(
    #[case] url: &str,
    #[case] host: &str,
    #[case] same: bool,
) {
    assert_eq!(CanvasUrl::parse(url).unwrap().authority_is(host), same);
}

#[test]
fn host_and_port_are_told_apart() {
    let canvas = CanvasUrl::parse("https://Api.Example.org:8443/a").unwrap();
    assert_eq!((canvas.host().as_ref(), canvas.port()), ("api.example.org", 8443));
    let canvas = CanvasUrl::parse("http://[::1]/a").unwrap();
    assert_eq!((canvas.host().as_ref(), canvas.port()), ("[::1]", 80));
}

#[rstest]
#[case::space("http://h/ir i-1", "http://h/ir%20i-1")]
#[case::beyond_ascii("http://h/irié-2?q=ü", "http://h/iri%C3%A9-2?q=%C3%BC")]
#[case::escapes_stay("http://h/a%20b%C3%A9", "http://h/a%20b%C3%A9")]
#[case::mixed("http://h/a%20b c", "http://h/a%20b%20c")]
#[case::no_escape("http://h/100% x%zz", "http://h/100%25%20x%25zz")]
#[case::quotes("http://h/\"a\"<b>`{c|d}^", "http://h/%22a%22%3Cb%3E%60%7Bc%7Cd%7D%5E")]
#[case::fragment("http://h/a b#x y", "http://h/a%20b#x%20y")]
fn a_name_becomes_the_uri_that_a_client_asks_for(#[case] name: &str, #[case] expected: &str) {
    assert_eq!(uri(name).as_deref(), Some(expected));
    assert_eq!(uri(expected).as_deref(), Some(expected), "once");
    assert!(CanvasUrl::parse(expected).is_some());
}

#[rstest]
#[case::control("http://h/a\u{1}b")]
#[case::newline("http://h/a\r\nHost: x")]
#[case::control_beyond_ascii("http://h/a\u{85}b")]
#[case::backslash("http://h/a\\b c")]
fn some_characters_are_in_no_name(#[case] name: &str) {
    assert_eq!(uri(name), None);
}

#[rstest]
#[case::space_in_host("http://h h/a")]
#[case::host_beyond_ascii("http://ｈ/a")]
#[case::userinfo("http://u ser@h/a")]
#[case::leading_space(" http://h/a")]
fn what_is_no_url_is_none_encoded_either(#[case] name: &str) {
    assert_eq!(CanvasUrl::parse(&uri(name).unwrap()), None);
}

proptest! {
    #[test]
    fn any_name_is_encoded_once(name in "(https?://h/)?\\PC*") {
        if let Some(encoded) = uri(&name) {
            let again = uri(&encoded);
            prop_assert_eq!(again.as_deref(), Some(&*encoded));
            prop_assert!(encoded.is_ascii());
        }
    }

    #[test]
    fn any_text_is_read_without_panic(url in "(https?://)?\\PC*") {
        let _ = CanvasUrl::parse(&url);
    }

    #[test]
    fn what_was_read_is_what_was_written(
        url in "https?://[a-z.]{1,9}(:[1-9][0-9]{0,3})?(/[a-z%0-9.;]*)+(\\?[a-z=&]*)?"
    ) {
        let canvas = CanvasUrl::parse(&url).unwrap();
        // A visit has no `update`, whatever the name holds.
        let own = format!("{}://{}{}", canvas.scheme, canvas.authority, canvas.visit_target());
        prop_assert!(own == url || url.contains("update"));
        prop_assert!(canvas.rebuild_target().starts_with(canvas.path));
        let base = format!("http://h{}", canvas.rebuild_target());
        let again = CanvasUrl::parse(&base).unwrap();
        prop_assert_eq!(again.rebuild_target(), canvas.rebuild_target());
    }
}

#[test]
fn what_is_plain_in_a_uri_needs_no_second_look() {
    for byte in 0..=u8::MAX {
        let needs_a_look = !byte.is_ascii_graphic() || b"\"%<>\\^`{|}".contains(&byte);
        assert_eq!(is_plain(byte), !needs_a_look, "{byte:#x}");
    }
}
