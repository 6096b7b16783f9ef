//! Tests of mistakes that `golden` has no case for: very many of them, unreadable files, and text at random.

use miette::{GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;

use super::super::Settings;
use super::super::command::write_errors;
use super::load;

#[test]
fn endless_mistakes_come_to_an_end() {
    let keys: String = (0..500).fold(String::new(), |text, number| format!("{text}key{number} = 1\n"));
    let mistakes = load(&keys, &[]).expect_err("no key is known").0;
    assert_eq!(mistakes.len(), 101);
    assert!(mistakes.iter().any(|mistake| mistake.message.contains("more than 100 mistakes")));
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake_with_help() {
    let none: [(String, String); 0] = [];
    let folder = tempfile::tempdir().unwrap();
    let missing = Settings::load(&folder.path().join("config.toml"), none.clone()).unwrap_err();
    assert!(missing.0[0].message.starts_with("cannot read "), "{missing:#}");
    assert!(missing.0[0].help.contains("--config"), "{missing:#}");
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, b"[heal]\n\xff").unwrap();
    let errors = Settings::load(&binary, none).unwrap_err();
    assert!(errors.0[0].message.ends_with("is not UTF-8 text: line 2"), "{errors:#}");
}

/// Loads the configuration and draws the mistakes, as `config check` would.
fn load_and_draw(text: &str, variable: (&str, &str)) {
    if let Err(errors) = load(text, &[variable]) {
        assert!(!errors.0.is_empty() && !format!("{errors:#}").is_empty());
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none());
        write_errors(&errors, &handler, &mut std::io::sink()).expect("a sink takes everything");
    }
}

proptest! {
    #[test]
    fn no_text_and_no_variable_makes_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        key in "IIIF_MENDER__[A-Z_0-9]{0,20}",
        value in ".{0,40}",
    ) {
        load_and_draw(&String::from_utf8_lossy(&bytes), (&key, &value));
    }

    #[test]
    fn no_arrangement_of_our_own_words_makes_it_panic(
        words in proptest::collection::vec(
            prop::sample::select(vec![
                "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\n", "'", "\"", "#", "heal", "routes", "server", "tls",
                "wait", "listen", "sources", "index", "mass_expiry", "ids", "prefix", "'25s'", "'/'", "404", "-1", "true",
            ]),
            0..60,
        ),
        variable in prop::sample::select(vec!["HEAL", "ROUTES", "ROUTES__0", "ROUTES__0__HOSTS", "SERVER__LISTEN", "INDEX__SOURCES__0__URL"]),
    ) {
        let text = words.concat();
        let name = format!("IIIF_MENDER__{variable}");
        load_and_draw(&text, (&name, &text));
    }
}
