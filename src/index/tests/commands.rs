//! The command line's answers.

use serde_json::Value;

use super::super::command::{Exit, IndexCommand, run};
use super::*;
use crate::config::settings;

fn settings(bench: &IndexBench) -> Settings {
    let index = settings::IndexSettings {
        path: bench.path(),
        sources: bench.sources(),
        cache: 100,
        refresh: Duration::ZERO,
        ..settings::IndexSettings::default()
    };
    Settings { index, ..Settings::default() }
}

fn ask(bench: &IndexBench, command: &IndexCommand, json: bool) -> (Exit, String) {
    let mut out = Vec::new();
    let exit = run(command, &settings(bench), json, &mut out).unwrap();
    (exit, String::from_utf8(out).unwrap())
}

fn json(bench: &IndexBench, command: &IndexCommand) -> (Exit, Value) {
    let (exit, out) = ask(bench, command, true);
    (exit, serde_json::from_str(&out).unwrap())
}

#[test]
fn an_image_is_looked_up_by_whatever_a_person_pastes() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one;2", "a%2Fb"]);
    assert_eq!(ask(&bench, &IndexCommand::Build { sources: Vec::new() }, false).0, Exit::Well);
    for (pasted, page) in [
        ("one;2", 1),
        ("one%3B2", 1),
        ("a/b", 2),
        ("a%2Fb", 2),
        ("https://images.test/iiif/2/one;2", 1),
        ("https://images.test/iiif/2/one;2/", 1),
        ("https://images.test/iiif/2/one;2/info.json", 1),
        ("https://images.test/iiif/2/a%2Fb/full/!200,200/0/default.jpg?t=1", 2),
        ("https://images.test/iiif-service/canvas/a.json/2", 2),
        ("https://images.test/iiif-service/canvas/a.json/2#xywh=0,0,1,1", 2),
    ] {
        let (exit, found) = json(&bench, &IndexCommand::Lookup { image: pasted.to_owned() });
        assert_eq!(exit, Exit::Well, "{pasted}");
        assert_eq!(found[0]["canvas"], canvas_url("a.json", page), "{pasted}");
        assert_eq!(found[0]["manifest"], manifest_uri("a.json"));
        assert_eq!(found[0]["label"], format!("Page {page}"));
    }
    let (exit, found) = json(&bench, &IndexCommand::Lookup { image: "unknown".to_owned() });
    assert_eq!((exit, found), (Exit::Broken, Value::Array(Vec::new())));
}

#[test]
fn stats_list_and_export_tell_what_is_there() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one", "two"]);
    bench.write("b.json", &["three"]);
    json(&bench, &IndexCommand::Refresh { sources: Vec::new() });
    let (_, stats) = json(&bench, &IndexCommand::Stats);
    assert_eq!(
        (&stats["manifests"], &stats["canvases"], &stats["images"]),
        (&2.into(), &3.into(), &3.into())
    );
    let (_, list) = json(&bench, &IndexCommand::List);
    assert_eq!(list[1]["uri"], manifest_uri("b.json"));
    let (_, lines) = ask(&bench, &IndexCommand::Export, false);
    assert_eq!(
        lines.lines().nth(2),
        Some(&*format!("three\t{}\t{}", canvas_url("b.json", 1), manifest_uri("b.json")))
    );
    let (_, lines) = ask(&bench, &IndexCommand::Export, true);
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn a_broken_file_makes_the_exit_status_1_and_the_rest_is_indexed() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one"]);
    fs::write(bench.file("b.json"), "{").unwrap();
    let (exit, report) = json(&bench, &IndexCommand::Build { sources: Vec::new() });
    assert_eq!(exit, Exit::Broken);
    assert_eq!((&report["manifests"], &report["problems"][0]["line"]), (&1.into(), &1.into()));
    let (_, human) = ask(&bench, &IndexCommand::Refresh { sources: Vec::new() }, false);
    assert!(human.contains("problems               1"), "{human}");
}

#[test]
fn an_added_source_is_read_at_once() {
    let bench = IndexBench::new();
    let more = bench.dir.path().join("more");
    fs::create_dir(&more).unwrap();
    fs::write(more.join("m.json"), manifest("m", &["extra"])).unwrap();
    let sources = vec![more.to_str().unwrap().to_owned()];
    assert_eq!(ask(&bench, &IndexCommand::Add { sources }, false).0, Exit::Well);
    assert_eq!(canvases_of(&bench.open(), "extra"), [canvas_url("m", 1)]);
}
