//! `[index]` and its sources.

use std::time::Duration;

use rstest::rstest;

use super::super::{ConfigCommand, ConfigOrigin, settings::SourceKind};
use super::{ROUTES, good, mistake};

#[test]
fn a_source_may_say_how_it_wants_to_be_asked() {
    let text = "[[index.sources]]\nurl = 'https://a.test/c'\nenabled = false\ninterval = '10m'\nconcurrency = 1\n\
                rate = 0\nhosts = ['B.test']\nheaders = { Authorization = 'Bearer 1' }\n";
    let settings = good(text, &[("IIIF_MENDER__INDEX__SOURCES__0__HEADERS__X-KEY", "2")]);
    let source = &settings.index.sources[0];
    assert_eq!(source.kind(), SourceKind::Url("https://a.test/c"));
    assert_eq!((source.enabled, source.interval), (false, Some(Duration::from_mins(10))));
    assert_eq!((source.concurrency, source.rate, &*source.hosts), (1, 0, &["b.test".to_owned()][..]));
    assert_eq!(
        (&source.headers["authorization"], &source.headers["x-key"]),
        (&"Bearer 1".parse().unwrap(), &"2".parse().unwrap())
    );
    assert!(!format!("{settings:?}").contains("Bearer"), "nor is it ever logged");
}

#[test]
fn show_keeps_the_keys_of_sources_to_itself_and_tells_the_rule() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.toml");
    let text = format!(
        "[[index.sources]]\nurl = 'https://a.test/c'\nheaders = {{ authorization = 'Bearer 1' }}\n{ROUTES}"
    );
    std::fs::write(&path, text).expect("a file");
    let mut out = Vec::new();
    let none: [(&str, &str); 0] = [];
    assert_eq!(
        ConfigCommand::Show
            .run(ConfigOrigin::find(Some(&path)), none, false, &mut out)
            .expect("a vector takes everything"),
        0
    );
    let shown = String::from_utf8(out).expect("text");
    assert!(!shown.contains("Bearer"), "{shown}");
    for line in [
        "headers = { authorization = \"***\" }  # line 3",
        "canvas_rule = { rest = \"/fcrepo/rest/\", files = \"/files/\", canvas = \"/iiif-service/fedora/canvas/\" }  # default",
        "grace = \"1day\"  # default",
        "rate = 10  # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
}

#[rstest]
#[case::fields_of_a_path("path = 'm'\nrate = 1", "`rate` means nothing for a path")]
#[case::ours("url = 'https://a.test/'\nheaders = { host = 'b' }", "`host` cannot be chosen")]
#[case::no_name("url = 'https://a.test/'\nheaders = { 'a b' = 'c' }", "`a b` is not the name of a header")]
#[case::no_value(
    "url = 'https://a.test/'\nheaders = { a = \"b\\nc\" }",
    "this cannot be the value of a header"
)]
#[case::zero("url = 'https://a.test/'\nconcurrency = 0", "`index.sources.0.concurrency`")]
fn what_makes_no_sense_for_a_source_is_a_mistake(#[case] source: &str, #[case] expected: &str) {
    let told = mistake(&format!("[[index.sources]]\n{source}\n"));
    assert!(told.contains(expected), "{told}");
}

#[test]
fn the_pieces_of_the_rule_have_slashes_at_both_ends() {
    let told = mistake("index.canvas_rule = { files = 'files' }\n");
    assert!(told.contains("`files` is not a piece of a path"), "{told}");
}
