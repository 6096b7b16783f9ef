//! Tests of values and keys that cannot be: one mistake at a time, then many.

use miette::{GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;
use rstest::rstest;

use super::super::Settings;
use super::super::command::write_errors;
use super::{bad, load, mistake};

/// `text` stands before two good routes; the mistake is written `place: message (help)`.
#[rstest]
#[case::a_typo("[heal]\nwiat = '1s'", "2:1: unknown key `wiat` in `heal` (did you mean `heal.wait`?)")]
#[case::a_dash(
    "[heal]\nwait-info = '1s'",
    "2:1: unknown key `wait-info` in `heal` (did you mean `heal.wait_info`?)"
)]
#[case::a_section("[sever]", "1:2: unknown key `sever` at the top of the file (did you mean `server`?)")]
#[case::no_section(
    "wait = '1s'",
    "1:1: unknown key `wait` at the top of the file (it belongs elsewhere: `heal.wait`)"
)]
#[case::elsewhere(
    "[server]\nwait = '1s'",
    "2:1: unknown key `wait` in `server` (it belongs elsewhere: `heal.wait`)"
)]
#[case::unheard_of(
    "[log]\nvolume = 11",
    "2:1: unknown key `volume` in `log` (take it out, or use one of `access`, `client`, `filter`, `format`, `queue`, `sample`)"
)]
#[case::inside(
    "server.tls = { crt = 'x' }",
    "1:16: unknown key `crt` in `server.tls` (did you mean `server.tls.cert`?)"
)]
fn an_unknown_key_is_refused_with_what_was_meant(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(
        mistake(&format!(
            "{text}
"
        )),
        format!("config.toml:{expected}")
    );
}

#[rstest]
#[case::number_for_time(
    "[heal]\nwait = 25",
    "2:8: wrong type: integer `25`, expected a duration such as \"25s\" (`heal.wait`: How long"
)]
#[case::table_for_time("[heal.wait]\nx = 1", "1:1: wrong type: table, expected a duration")]
#[case::text_for_bool(
    "[heal]\nenabled = 'yes'",
    "2:11: wrong type: string \"yes\", expected a boolean (`heal.enabled`: Heal at all"
)]
#[case::text_for_number(
    "[heal]\nstatuses = ['404']",
    "2:13: wrong type: string \"404\", expected a status such as 404 (`heal.statuses`"
)]
#[case::text_for_list(
    "[heal]\nladder = 'visit'",
    "2:10: wrong type: string \"visit\", expected a list (`heal.ladder`: The ways to heal"
)]
#[case::number_for_listen(
    "[server]\nlisten = 8080",
    "2:10: wrong type: integer `8080`, expected one value or a list of them (`server.listen`"
)]
#[case::number_for_section("heal = 3", "1:8: wrong type: integer `3`, expected a table")]
#[case::list_for_section(
    "[[heal]]",
    "1:1: wrong type: list, expected a table for `heal` (write a single [table]"
)]
#[case::fields_in_a_row("heal = [false]", "1:8: wrong type: list, expected a table for `heal`")]
#[case::fraction(
    "[heal]\nconcurrency = 1.5",
    "2:15: wrong type: floating point `1.5`, expected a whole number"
)]
fn a_wrong_type_is_refused_with_what_must_stand_there(#[case] text: &str, #[case] expected: &str) {
    let mistake = mistake(&format!("{text}\n"));
    assert!(mistake.starts_with(&format!("config.toml:{expected}")), "{mistake}");
}

#[rstest]
#[case("heal.wait = '25'", "`25` is not a duration (write a number and a unit")]
#[case("heal.wait = '900y'", "`900y` is longer than a year")]
#[case("server.max_head_bytes = 'many'", "`many` is not a size (write a number of bytes")]
#[case("server.max_head_bytes = '2TiB'", "`2TiB` is more than 1 TiB")]
#[case("server.max_head_bytes = -1", "`-1` is not a size")]
#[case(
    "server.listen = 'localhost:80'",
    "`localhost:80` is not an address to listen on (write an IP address and a port"
)]
#[case("server.listen = '127.0.0.1:70000'", "is not an address to listen on (ports end at 65535)")]
#[case("server.listen = '8080'", "`8080` is not an address to listen on (write the address too")]
#[case("admin.listen = 'of'", "`of` is not an address to listen on")]
#[case("server.trusted_proxies = ['10.0.0.0/33']", "`10.0.0.0/33` is not an address or network")]
#[case("heal.origins = ['canvas.test']", "names are not looked up here")]
#[case(
    "server.public_hosts = ['https://a.test/x']",
    "is not a host name (leave out the scheme and the path: \"a.test\")"
)]
#[case("server.public_hosts = ['*.test']", "is not a host name (write every name in full")]
#[case("server.public_hosts = ['a b']", "`a b` is not a host name (write the name alone")]
#[case("server.public_hosts = ['a.test:70000']", "is not a host name")]
#[case("admin.viewer = 'https://viewer.test/'", "`https://viewer.test/` is not the URL of a viewer")]
#[case("admin.viewer = 'javascript:open({manifest})'", "with {manifest} in the place of the manifest")]
#[case("server.name = 'a b'", "`a b` cannot stand in a Via header")]
#[case("heal.ladder = ['vist']", "`vist` is not a rung of the ladder (did you mean \"visit\"?)")]
#[case(
    "heal.ladder = ['climb']",
    "write one of \"direct\", \"register\", \"variant\", \"visit\", \"rebuild\""
)]
#[case(
    "heal.missing_image = 'grey'",
    "`grey` is not an answer for a missing image (write one of \"off\", \"404\", \"200\""
)]
#[case("heal.statuses = [200]", "200 is not the status of an error (write statuses from 400 to 599")]
#[case("heal.statuses = [70000]", "70000 is not the status of an error")]
#[case("heal.statuses = [403]", "403 must not be healed (take it out")]
#[case("heal.direct_statuses = [401]", "401 must not be healed")]
#[case("heal.concurrency = -1", "`-1` is out of range (write a whole number")]
#[case("heal.identifiers = '('", "`(` is not a regular expression: unclosed group")]
#[case("heal.skip_header = 'a b'", "`a b` is not the name of a header")]
#[case("log.filter = 'iiif=nonsense'", "is not a log filter")]
#[case("log.format = 'jsn'", "did you mean \"json\"?")]
#[case("index.path = ''", "this is not a path")]
#[case("index.file_url_bases = ['fcrepo/rest']", "is not an http or https URL (write the whole URL")]
fn a_bad_value_is_refused_with_what_to_write(#[case] text: &str, #[case] expected: &str) {
    let mistake = mistake(text);
    assert!(mistake.starts_with("config.toml:1:"), "{mistake}");
    assert!(mistake.contains(expected), "{mistake}");
}

#[rstest]
#[case("api.test/iiif/", "is not an http or https URL (write the whole URL")]
#[case("ftp://api.test/iiif/", "begin it with http:// or https://")]
#[case("http:///iiif/", "is not an http or https URL")]
#[case("http://api.test:0/", "is not an http or https URL")]
#[case("http://api.test:99999/", "is not an http or https URL")]
#[case(
    "http://me:secret@api.test/",
    "this URL carries a user name or password (take out everything up to the `@`"
)]
#[case("http://api.test/?a=b", "has a query or a fragment (leave out everything from `?`")]
#[case("http://api.test/#top", "has a query or a fragment")]
#[case("http://api.test/a/../", "has a path that cannot be used (write the path without `.` and `..`)")]
#[case("http://api.test/a//", "write single slashes")]
#[case("http://api.test/a b/", "percent-encode spaces")]
fn a_bad_upstream_is_refused_with_what_to_write(#[case] url: &str, #[case] expected: &str) {
    let mistakes = bad(&format!("[[routes]]\nprefix = '/'\nupstream = '{url}'"), &[]);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert!(mistakes[0].starts_with("config.toml:3:12: "), "{mistakes:?}");
    assert!(mistakes[0].contains(expected), "{mistakes:?}");
    assert!(!mistakes[0].contains("secret"), "{mistakes:?}");
}

#[rstest]
#[case("iiif/2/", "begin it with a slash: \"/iiif/2/\"")]
#[case("https://a.test/iiif/", "begin it with a slash: \"/iiif/\"")]
#[case("/iiif/../", "write the path without `.` and `..`")]
#[case("/iiif/?x", "leave out the query")]
fn a_bad_prefix_is_refused_with_what_to_write(#[case] prefix: &str, #[case] expected: &str) {
    let mistakes = bad(&format!("[[routes]]\nprefix = '{prefix}'\nupstream = 'http://a.test/'"), &[]);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert!(mistakes[0].contains(expected), "{mistakes:?}");
}

#[test]
fn broken_syntax_is_shown_beside_the_other_mistakes() {
    let text = "[heal]\nwait = \ncooldown = 'x'\nwait_info = '30s'\nwait_info = '31s'\n";
    let mistakes = bad(text, &[]);
    assert_eq!(mistakes.len(), 3, "{mistakes:#?}");
    assert!(mistakes[0].starts_with("config.toml:2:8: "), "{mistakes:#?}");
    assert!(mistakes[1].contains("`x` is not a duration"), "{mistakes:#?}");
    assert!(mistakes[2].starts_with("config.toml:5:1: duplicate key"), "{mistakes:#?}");
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = "
[server]
listen = ['127.0.0.1:1', 'nowhere', '127.0.0.1:x']
listn = 1
public_hosts = ['http://a.test', 'b.test', 'c d']
[[routes]]
prefix = 'iiif'
kind = 'imgae'
[[routes]]
prefix = '/x/'
upstream = 'http://a.test/x'
[[index.sources]]
path = 'a'
url = 'http://a.test/'
[heal]
wait = 1
wait_info = '5m'
timeout = '4m'
concurrency = 0
statuses = [404, 403, 200]
[nonsense]
";
    let places: Vec<String> = bad(text, &[("IIIF_MENDER__LOG__FORMAT", "xml"), ("IIIF_MENDER__LOG__X", "1")])
        .iter()
        .map(|mistake| {
            mistake.split(": ").next().unwrap_or_default().trim_start_matches("config.toml:").to_owned()
        })
        .collect();
    let expected = [
        "3:26",
        "3:37",
        "4:1",
        "5:17",
        "5:44",
        "6:1",
        "7:10",
        "8:8",
        "11:12",
        "12:1",
        "16:8",
        "17:13",
        "19:15",
        "20:18",
        "20:23",
        "21:2",
        "IIIF_MENDER__LOG__FORMAT",
        "IIIF_MENDER__LOG__X",
    ];
    assert_eq!(places, expected);
}

#[test]
fn a_mistake_causes_no_others() {
    // The bad `wait` would be the default of 25 s, longer than `wait_info`; the bad kind would be no presentation.
    let text = "heal.wait_info = '5s'\nheal.wait = 'x'\n[[routes]]\nprefix = '/'\nupstream = 'http://a.test'\nkind = 'x'\n\
        [[routes]]\nprefix = '/i/'\nupstream = 'http://a.test/'\nkind = 'image'";
    assert_eq!(bad(text, &[]).len(), 2, "{:#?}", bad(text, &[]));
}

#[test]
fn a_misspelt_key_is_not_missing_besides() {
    let mistakes = bad("[[routes]]\nprefx = '/'\nupstream = 'http://a.test'", &[]);
    assert_eq!(
        mistakes,
        ["config.toml:2:1: unknown key `prefx` in `routes` (did you mean `routes.prefix`?)"]
    );
}

#[test]
fn endless_mistakes_come_to_an_end() {
    let keys: String = (0..500).fold(String::new(), |text, number| format!("{text}key{number} = 1\n"));
    let mistakes = bad(&keys, &[]);
    assert_eq!(mistakes.len(), 101);
    assert!(mistakes.iter().any(|mistake| mistake.contains("more than 100 mistakes")));
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
