//! The shipped `config.toml`: it loads, it tells the defaults, it leaves no key out.

use std::path::Path;

use serde_json::Value;
use toml::Table;

use super::super::settings::{Admin, Heal, Index, Log, RouteKind, Server, Source, Upstream};
use super::super::{Settings, schema};

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
