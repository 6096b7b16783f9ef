//! `config check|show|schema`.

use std::path::PathBuf;

use serde_json::Value;

use super::super::{ConfigCommand, ConfigOrigin, Settings};
use super::{ROUTES, good};

struct CommandWorld {
    folder: tempfile::TempDir,
}

impl CommandWorld {
    fn with(text: &str) -> Self {
        let world = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::write(world.path(), text).expect("a file");
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    fn run(&self, command: ConfigCommand, env: super::Env<'_>) -> (u8, String) {
        let mut out = Vec::new();
        let code = command
            .run(ConfigOrigin::find(Some(&self.path())), env.iter().copied(), false, &mut out)
            .expect("a vector takes everything");
        let text = String::from_utf8(out).expect("text");
        (code, text.replace(&self.folder.path().display().to_string(), "FOLDER"))
    }
}

#[test]
fn check_shows_the_routes_of_a_good_configuration() {
    let text =
        format!("server.public_hosts = ['images.test']\n{ROUTES}hosts = ['a.test']\nconnect = '10.0.0.1:80'");
    let (code, text) = CommandWorld::with(&text).run(ConfigCommand::Check, &[]);
    assert_eq!(code, 0);
    insta::assert_snapshot!(text, @r"
    FOLDER/config.toml is in order

      listen  127.0.0.1:8080 (http)
      admin   127.0.0.1:9090

      presentation  /iiif-service/  →  http://canvases.test/iiif-service/ at 10.0.0.1:80 for a.test
      image         /iiif/2/        →  http://images.test/iiif/2/

    note: images.test is also one of our public_hosts: once that name points here, give its routes `connect`, or requests go round in circles
    ");
}

#[test]
fn check_shows_every_mistake_and_exits_with_2() {
    let (code, text) = CommandWorld::with("[heal]\nwiat = '1s'\n")
        .run(ConfigCommand::Check, &[("IIIF_MENDER__LOG__FORMAT", "xml")]);
    assert_eq!(code, 2);
    for expected in
        ["unknown key `wiat`", "there is no route", "`xml` is not a log format", "did you mean `heal.wait`?"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn show_tells_where_each_value_came_from() {
    let text = format!(
        "heal.wait = '20s'\n[[index.sources]]\nurl = 'https://a.test/m?key=secret'\n[[routes]]\nprefix = '/'\nupstream = 'http://x.test/'\n{ROUTES}"
    );
    let (code, text) = CommandWorld::with(&text).run(
        ConfigCommand::Show,
        &[
            ("IIIF_MENDER__LOG__FORMAT", "json"),
            ("IIIF_MENDER__ROUTES__0__KIND", "plain"),
            ("IIIF_MENDER__HEAL__MASS_EXPIRY__IDS", "7"),
            ("IIIF_MENDER__UPSTREAM__HEALTH__STATUS", "204"),
        ],
    );
    assert_eq!(code, 0);
    for line in [
        "name = \"iiif-mender\"  # default",
        "kind = \"plain\"  # IIIF_MENDER__ROUTES__0__KIND",
        "status = 204  # IIIF_MENDER__UPSTREAM__HEALTH__STATUS",
        "max_resets = 256  # default",
        "prefix = \"/iiif-service/\"  # line 14",
        "path = \"FOLDER/iiif-mender.sqlite3\"  # default",
        "url = \"https://a.test/m?…\"  # line 3",
        "ladder = [\"direct\", \"register\", \"variant\", \"visit\", \"rebuild\"]  # default",
        "wait = \"20s\"  # line 1",
        "mass_expiry = { ids = 7, within = \"10s\" }  # ids: IIIF_MENDER__HEAL__MASS_EXPIRY__IDS, within: default",
        "format = \"json\"  # IIIF_MENDER__LOG__FORMAT",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
}

#[test]
fn what_show_prints_means_the_same_when_it_is_read_again() {
    let world = CommandWorld::with(&format!(
        "heal.identifiers = 'a'\nserver.listen = ['[::1]:1']\nindex.sources = [{{ path = 'm' }}]\n{ROUTES}"
    ));
    let mut out = Vec::new();
    let none: [(&str, &str); 0] = [];
    ConfigCommand::Show
        .run(ConfigOrigin::find(Some(&world.path())), none, false, &mut out)
        .expect("a vector takes everything");
    let again =
        Settings::from_text(&world.path(), &String::from_utf8_lossy(&out), none).expect("it is in order");
    assert_eq!(again, Settings::load(&world.path(), none).expect("it is in order"));
}

#[test]
fn show_of_a_broken_configuration_shows_the_mistakes() {
    let (code, text) = CommandWorld::with("x = 1").run(ConfigCommand::Show, &[]);
    assert_eq!(code, 2);
    assert!(text.contains("unknown key `x`"), "{text}");
}

#[test]
fn schema_needs_no_file_and_holds_the_defaults() {
    let world = CommandWorld::with("not a configuration");
    let (code, text) = world.run(ConfigCommand::Schema, &[]);
    assert_eq!(code, 0);
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(schema["properties"]["heal"]["properties"]["wait"]["default"], "25s");
    assert_eq!(schema["properties"]["heal"]["properties"]["ladder"]["default"][0], "direct");
    assert_eq!(schema["properties"]["routes"]["items"]["properties"]["kind"]["enum"][2], "plain");
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn the_defaults_are_settings_without_routes() {
    let settings = good("", &[]);
    let expected = Settings { routes: settings.routes.clone(), ..Settings::default() };
    let mut settings = settings;
    settings.index.path = "iiif-mender.sqlite3".into();
    assert_eq!(settings, expected);
}
