//! `[index]` and its sources.

use std::time::Duration;

use super::super::{ConfigCommand, ConfigOrigin, settings::SourceKind};
use super::{ROUTES, good};

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
