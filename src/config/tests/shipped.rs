//! The shipped `config.toml`: it loads, it tells the defaults, it leaves no key out.

use std::path::Path;

use serde_json::Value;
use toml::Table;

use super::super::schema::schema;
use super::super::settings::{Admin, Heal, Index, Log, RouteKind, Server, Source, Upstream};
use super::super::{Settings, differences, keep_until_restart, reference};

const SHIPPED: &str = include_str!("../../../config.toml");

fn read(text: &str) -> Settings {
    let none: [(String, String); 0] = [];
    Settings::from_text(Path::new("config.toml"), text, none).unwrap_or_else(|errors| panic!("{errors:#}"))
}

/// Keys that stand commented out, made to stand.
fn uncommented() -> String {
    let is_key = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        line == "[[index.sources]]"
            || line.contains(" = ") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let lines =
        SHIPPED.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line));
    lines.fold(String::new(), |text, line| format!("{text}{line}\n"))
}

#[test]
fn it_tells_the_defaults_and_the_library_s_own_deployment() {
    let settings = read(SHIPPED);
    let public_hosts = vec!["api.library.tamu.edu".to_owned()];
    assert_eq!(settings.server, Server { public_hosts, ..Server::default() });
    assert_eq!(settings.admin, Admin::default());
    assert_eq!(settings.upstream, Upstream::default());
    assert_eq!(settings.index, Index { sources: vec![Source::path("manifests/")], ..Index::default() });
    assert_eq!(settings.heal, Heal::default());
    assert_eq!(settings.log, Log::default());
    let routes: Vec<_> = settings.routes.iter().map(|route| (route.prefix.as_str(), route.kind)).collect();
    assert_eq!(
        routes,
        [
            ("/iiif-service/", RouteKind::Presentation),
            ("/iiif/2/", RouteKind::Image),
            ("/", RouteKind::Plain)
        ]
    );
}

#[test]
fn what_stands_commented_out_is_in_order_too() {
    let settings = read(&uncommented());
    assert!(settings.server.tls.is_some() && settings.upstream.ca.is_some());
    assert!(settings.heal.identifiers.is_some() && settings.heal.skip_header.is_some());
    assert_eq!(settings.index.sources.len(), 2);
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
fn it_holds_every_key_of_the_schema() {
    let file = toml::Value::Table(uncommented().parse::<Table>().expect("it is TOML"));
    let mut found = Vec::new();
    lacking(schema(), &[&file], "", &mut found);
    assert_eq!(found, Vec::<String>::new(), "add them to config.toml");
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
    let other = read(&format!(
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
    // Whether TLS is spoken waits for a restart, too; other files do not.
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
