//! Tests of the shipped files: `config.toml` to begin with, `config defaults` with every key, and the reference.

use serde_json::Value;
use toml::Table;

use super::super::defaults::defaults;
use super::super::schema::schema;
use super::super::settings::{AdminSettings, IndexSettings, RouteKind, ServerSettings, SourceSettings};
use super::super::{Settings, differences, keep_until_restart, reference};
use super::{ROUTES, load, settings_of};

const SHIPPED: &str = include_str!("../../../config.toml");

#[test]
fn the_shipped_file_is_short_and_says_what_a_newcomer_must_set() {
    let settings = settings_of(SHIPPED);
    let public_hosts = vec!["localhost:8080".to_owned()];
    let trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
    assert_eq!(
        settings.server,
        ServerSettings { public_hosts, trusted_proxies, ..ServerSettings::default() }
    );
    assert_eq!((&settings.admin, &settings.index), (&AdminSettings::default(), &IndexSettings::default()));
    let routes: Vec<_> = settings.routes.iter().map(|route| (route.prefix.as_str(), route.kind)).collect();
    assert_eq!(routes, [("/iiif-service/", RouteKind::Presentation), ("/iiif/2/", RouteKind::Image)]);
    let rest =
        Settings { server: settings.server.clone(), routes: settings.routes.clone(), ..Settings::default() };
    assert_eq!(settings, rest);
    let lines = SHIPPED.lines().count();
    assert!(lines < 50, "{lines} lines: other keys stand in `config defaults`");
}

#[test]
fn the_sources_that_stand_commented_out_in_the_shipped_file_are_in_order() {
    let (before, sources) = SHIPPED.split_once("# [[index.sources]]").expect("sources");
    let sources: Vec<_> = sources.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
    let settings = settings_of(&format!("{before}[[index.sources]]{}", sources.join("\n")));
    let url = SourceSettings::url("https://iiif.example.org/collection.json");
    assert_eq!(settings.index.sources, [SourceSettings::path("manifests"), url]);
}

/// `config defaults` with the keys that have none, and its examples of lists of tables.
fn with_examples() -> String {
    let is_key = |line: &&str| line.starts_with(|first: char| first == '[' || first.is_ascii_lowercase());
    let text = defaults();
    let lines = text.lines().map(|line| line.strip_prefix('#').filter(is_key).unwrap_or(line));
    lines.fold(String::new(), |text, line| format!("{text}{line}\n"))
}

#[test]
fn the_file_of_all_defaults_says_what_holds_without_it() {
    let (all, none) = (settings_of(&format!("{}{ROUTES}", defaults())), settings_of(ROUTES));
    assert_eq!(all, none, "{:?}", differences(&all, &none));
}

#[test]
fn the_file_of_all_defaults_has_good_examples() {
    let errors = load(&with_examples(), &[]).expect_err("all at once");
    // The only mistakes come from putting both into one file.
    let told: Vec<_> = errors.0.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "an authority is named, and no URL speaks TLS",
            "this source has both a path and a URL",
            "URLs are to be rewritten, but no host name is said to mean us",
            "images cannot be healed: no route leads to the canvas service",
        ]
    );
}

/// Every key of the schema that `file` lacks.
fn lacking(schema: &Value, file: &[&toml::Value], path: &str, found: &mut Vec<String>) {
    let properties = schema["properties"].as_object().expect("a table has properties");
    for (name, property) in properties {
        let path = format!("{path}.{name}");
        let mut below: Vec<&toml::Value> = file.iter().filter_map(|table| table.get(name)).collect();
        if below.is_empty() {
            found.push(path);
            continue;
        }
        if property["items"]["properties"].is_object() {
            below = below.iter().filter_map(|list| list.as_array()).flatten().collect();
            lacking(&property["items"], &below, &path, found);
        } else if property["properties"].is_object() {
            lacking(property, &below, &path, found);
        }
    }
}

#[test]
fn the_file_of_all_defaults_holds_every_key_of_the_schema() {
    let file = toml::Value::Table(with_examples().parse::<Table>().expect("it is TOML"));
    let mut found = Vec::new();
    lacking(schema(), &[&file], "", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn walk(schema: &Value, path: &str) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            assert!(property["description"].as_str().is_some_and(|text| text.len() > 10), "{path}");
            assert!(!property.to_string().contains("null"), "{path}: {property}");
            walk(property, &path);
            walk(&property["items"], &path);
        }
    }
    walk(schema(), "");
}

#[test]
fn the_reference_in_the_docs_is_what_the_program_says() {
    let page = include_str!("../../../docs/CONFIG.md");
    let renew = "renew it: cargo run -- config reference > docs/CONFIG.md";
    for (written, said) in page.lines().zip(reference().lines()) {
        assert_eq!(written, said, "{renew}");
    }
    assert_eq!(page, reference(), "{renew}");
}

#[test]
fn keys_that_the_reference_calls_restart_are_those_that_a_reload_leaves() {
    let old = Settings::default();
    let other = settings_of(&format!(
        "{}\n[cluster]\nurl = 'redis://a.test'\n",
        "admin = { listen = 'off', tls = { cert = 'a', key = 'b' }, client_ca = 'c', max_connections = 7, max_live = 7, acts = 7 }
         index = { cache = 7, path = 'other', learn = false, refresh = '7s' }
         log = { format = 'json', queue = 7, filter = 'warn', access = 'all', sample = 7 }
         server = { workers = 7, listen = '127.0.0.1:7', drain = '7m', name = 'seven', public_hosts = ['a.test'] }
         telemetry = { otlp = 'http://a.test', headers = { a = 'b' }, sample = 7, timeout = '7s', queue = 7 }
         heal = { ahead = 7, wait = '7s', cooldown = '7s' }
         presentation = { max_flights = 7, manifests = true }
         rewrite.public_url = 'https://b.test'
         upstream = { max_requests = 7, http2 = 'auto' }
         routes = [{ prefix = '/iiif/2/', upstream = 'http://i.test/iiif/2/', kind = 'image' },
                   { prefix = '/', upstream = 'http://c.test/', kind = 'presentation' }]"
    ));
    let wanted = differences(&old, &other);
    let mut kept = other;
    keep_until_restart(&mut kept, &old);
    let changed = differences(&old, &kept);
    let left: Vec<_> = wanted.iter().filter(|key| !changed.contains(key)).collect();
    // Turning TLS on or off waits for a restart, too; other files do not.
    let mut named = vec!["admin.tls".to_owned()];
    noted(schema(), "", &mut named);
    let is_named = |key: &str| named.iter().any(|named| key.starts_with(named));
    assert_eq!(left, wanted.iter().filter(|key| is_named(key)).collect::<Vec<_>>());
    for named in named {
        assert!(left.iter().any(|key| key.starts_with(&named)), "{named} was taken up");
    }
}

/// The keys and tables whose fields say that they hold only after a restart.
fn noted(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match property["x-reload"].as_str() {
            Some(_) => found.push(path),
            None => noted(property, &path, found),
        }
    }
}
