//! Docs fail the build, too: what they name exists, and what exists is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory as _;
use iiif_mender::cli::Cli;
use iiif_mender::config::Settings;
use iiif_mender::config::settings::Rung;
use iiif_mender::observe::{CacheResult, EventKind, Metrics, RequestTrace};
use iiif_mender::outcome::Outcome;
use regex::Regex;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub(crate) fn read(path: &str) -> String {
    let full = Path::new(ROOT).join(path);
    fs::read_to_string(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()))
}

/// What stands in the fenced blocks of this language.
pub(crate) fn fenced(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == format!("```{language}") {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

fn found<'a>(pattern: &str, text: &'a str) -> Vec<&'a str> {
    let pattern = Regex::new(pattern).expect("a pattern");
    pattern.captures_iter(text).map(|found| found.get(1).expect("one group").as_str()).collect()
}

/// Every file of `src`, as text.
fn source() -> String {
    let files =
        walkdir::WalkDir::new(Path::new(ROOT).join("src")).into_iter().map(|entry| entry.expect("src"));
    let code = files.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "rs"));
    code.map(|entry| fs::read_to_string(entry.path()).expect("text")).collect()
}

pub(crate) fn pages() -> Vec<PathBuf> {
    let folders = ["", "docs", "docs/decisions"].map(|folder| Path::new(ROOT).join(folder));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    let pages = entries.map(|entry| entry.expect("an entry").path());
    pages.filter(|page| page.extension().is_some_and(|kind| kind == "md")).collect()
}

#[test]
fn links_between_the_docs_lead_somewhere() {
    let mut links = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("text");
        for link in found(r"\]\(([^)]+)\)", &text) {
            if link.starts_with("http") {
                continue;
            }
            let target = link.split('#').next().unwrap_or_default();
            let full = page.parent().expect("a folder").join(target);
            assert!(full.exists(), "{}: {link} leads nowhere", page.display());
            links += 1;
        }
    }
    assert!(links > 20, "only {links} links were found");
}

#[test]
fn the_architecture_is_short_and_names_only_what_exists() {
    let text = read("docs/ARCHITECTURE.md");
    assert!(text.lines().count() <= 130, "{} lines", text.lines().count());
    let paths = found(r"((?:src|tests|examples|docs)/[\w./-]*\w|(?:src|tests|examples)/\w+/)", &text);
    assert!(paths.len() > 25, "{paths:?}");
    for path in paths {
        assert!(Path::new(ROOT).join(path).exists(), "{path} does not exist");
    }
    assert!(!Regex::new(r"\.rs:\d|\blines? \d").expect("a pattern").is_match(&text), "no line numbers");
    let source = source();
    for symbol in found(r"`([A-Z]\w+)(?:::\w+)?`", &text).into_iter().filter(|word| *word != "Result") {
        let defined = format!(r"\b(?:struct|enum|trait|type) {symbol}\b");
        assert!(Regex::new(&defined).expect("a pattern").is_match(&source), "{symbol} does not exist");
    }
    for method in found(r"`[A-Z]\w+::(\w+)`", &text) {
        assert!(source.contains(&format!("fn {method}")), "{method} does not exist");
    }
    for room in fs::read_dir(Path::new(ROOT).join("src")).expect("src") {
        let room = room.expect("an entry").file_name().into_string().expect("text");
        let is_known = text.contains(&format!("src/{room}")) || ["main.rs", "lib.rs"].contains(&&*room);
        assert!(is_known, "src/{room} is not on the map");
    }
}

#[test]
fn each_word_of_the_lexicon_stands_there_once() {
    let text = read("docs/LEXICON.md");
    let words = found(r"(?m)^\| \*\*([^*]+)\*\* \|", &text);
    assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len(), "a word stands there twice");
    assert!(words.len() > 30 && !words.contains(&"resource"), "{words:?}");
    let rungs = [Rung::Direct, Rung::Register, Rung::Visit, Rung::Rebuild].map(Rung::as_str);
    for word in Outcome::ALL.map(Outcome::as_str).iter().chain(&rungs) {
        assert!(text.contains(&format!("`{word}`")), "{word} has no meaning");
    }
}

#[test]
fn tests_that_the_docs_name_exist() {
    let text = read("docs/TESTING.md");
    let named = found(r"`(\w+::\w+)`", &text);
    assert!(named.len() > 30, "{named:?}");
    for test in named {
        let (suite, name) = test.split_once("::").expect("a suite");
        let source = read(&format!("tests/it/{suite}.rs"));
        assert!(source.contains(&format!("fn {name}(")), "{test} does not exist");
    }
    let scenarios = found(r"(?m)^\| (\d+) \| ", &text);
    assert_eq!(scenarios, (1..=25).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// Name → labels, of everything that a scrape can hold.
pub(crate) fn scraped() -> BTreeMap<String, BTreeSet<String>> {
    let metrics = Metrics::new();
    metrics.request("image", Outcome::Served, 200, Duration::ZERO);
    metrics.upstream_error("connection_refused");
    metrics.heal("healed", "visit", "viewer", Duration::ZERO, &RequestTrace::generate());
    metrics.waited(Duration::ZERO, &RequestTrace::generate());
    metrics.canvas_request("visit", "carries", Duration::ZERO, &RequestTrace::generate());
    metrics.upstream_answered("image", Duration::ZERO);
    metrics.learned("learned");
    metrics.lane_waiting("viewer", 1);
    metrics.setup_finding("index", "bad", false);
    metrics.resource_check("alive");
    metrics.index_lookup("known");
    metrics.event(EventKind::Echo);
    let _export = metrics.spans.open(1, 1);
    metrics.cache.request(false, CacheResult::Hit);
    metrics.cache.removed("size");
    metrics.edge.connection_cut("stuck");
    metrics.edge.config_reload("applied");
    let authority = http::uri::Authority::from_static("images.test:80");
    metrics.upstream.set_server_up(&authority, &authority, true);
    metrics.upstream.retried("stale");
    metrics.upstream.variants("service.test:80", &["honoured"], "honoured");
    let scrape = metrics.scrape();
    let mut all = BTreeMap::new();
    for line in scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("name and type");
        let (name, sample) = match kind {
            "counter" => (format!("{name}_total"), format!("{name}_total")),
            "info" => (format!("{name}_info"), format!("{name}_info")),
            "histogram" => (name.to_owned(), format!("{name}_count")),
            _ => (name.to_owned(), name.to_owned()),
        };
        let line = scrape
            .lines()
            .find(|line| line.strip_prefix(&*sample).is_some_and(|rest| rest.starts_with(['{', ' '])));
        let line = line.unwrap_or_else(|| panic!("{name} was never counted: count it here"));
        let labels = found(r#"(\w+)=""#, line).into_iter().map(str::to_owned).collect();
        all.insert(name, labels);
    }
    all
}

/// A row about a metric: ours, or one that all processes have.
fn is_metric(row: &str) -> bool {
    row.starts_with("| `iiif_mender_") || row.starts_with("| `process_")
}

#[test]
fn every_metric_and_label_of_the_scrape_is_documented_and_nothing_else() {
    let text = read("docs/METRICS.md");
    let mut documented = BTreeMap::new();
    for row in text.lines().filter(|line| is_metric(line)) {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let name = cells.next().expect("a name").trim_matches('`').to_owned();
        // Most gauges have no labels, and their table no column for them.
        let labels = if cells.clone().count() > 1 { cells.next().unwrap_or_default() } else { "" };
        let labels = labels.split(" (").next().unwrap_or_default();
        let labels = found(r"`(\w+)`", labels).into_iter().map(str::to_owned).collect();
        documented.insert(name, labels);
    }
    assert_eq!(documented, scraped());
}

#[test]
fn every_label_value_is_documented() {
    let (text, source) = (read("docs/METRICS.md"), source());
    let values = |label: &str| {
        let row = text.lines().find(|line| line.starts_with(&format!("| {label} |")));
        let row = row.unwrap_or_else(|| panic!("METRICS.md says nothing of {label}"));
        let row = Regex::new(r"\([^)]*\)").expect("a pattern").replace_all(row, "");
        let cell = row.trim_matches('|').split('|').nth(1).expect("two cells").to_owned();
        found(r"`(\w+)`", &cell).into_iter().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let used =
        |pattern: &str| found(pattern, &source).into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(values("events"), EventKind::ALL.map(|kind| kind.as_str().to_owned()).into());
    assert_eq!(values("`outcome`"), Outcome::ALL.map(|outcome| outcome.as_str().to_owned()).into());
    assert_eq!(values("upstream errors"), kinds_of_upstream_errors());
    let learn = read("src/index/learn/traffic.rs");
    let results: BTreeSet<_> =
        found(r#""(learned|learn_[a-ce-z]\w*)""#, &learn).into_iter().map(str::to_owned).collect();
    assert_eq!(values("learned"), results);
    let lookups = used(r#"index_lookup\(\s*"(\w+)""#);
    assert!(values("index lookups").is_superset(&lookups), "{lookups:?}");
}

fn kinds_of_upstream_errors() -> BTreeSet<String> {
    let code = read("src/upstream/error.rs");
    found(r#"=> "(\w+)","#, &code).into_iter().map(str::to_owned).collect()
}

#[test]
fn metrics_that_docs_speak_of_exist() {
    let known = scraped();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("text");
        for name in found(r"\b(iiif_mender_[a-z_]+)", &text) {
            assert!(known.contains_key(name), "{}: {name} does not exist", page.display());
        }
    }
}

#[test]
fn the_runbook_names_what_exists() {
    let (text, source) = (read("docs/OPERATIONS.md"), source());
    let (metrics, alerts) = (scraped(), read("deploy/prometheus/alerts.yml"));
    let (_, runbook) = text.split_once("\n## Runbook\n").expect("a runbook");
    let rows: Vec<_> = runbook.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 15, "{rows:?}");
    for row in rows {
        let look = row.split(" | ").nth(1).expect("a second cell");
        let names = found("`([^`]+)`", look);
        assert!(!names.is_empty(), "where is it seen? {row}");
        for name in names {
            // Log lines, outcomes and fields stand in the source as they are; fields in lower case.
            let is_ours = [name.to_owned(), name.to_lowercase()].iter().any(|name| source.contains(name));
            let is_alert = alerts.contains(&format!("alert: {name}\n"));
            assert!(metrics.contains_key(name) || is_alert || is_ours, "{name} does not exist: {row}");
        }
    }
    for line in found("log lines? `([^`]+)`", &text) {
        assert!(source.contains(line), "nothing logs `{line}`");
    }
}

#[test]
fn the_readme_lists_every_command_and_no_other() {
    let text = read("README.md");
    let listed: BTreeSet<_> = found(r"(?m)^\| `iiif-mender ([a-z -]+)`", &text).into_iter().collect();
    let mut cli = Cli::command();
    cli.build();
    let mut real = BTreeSet::new();
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        let own: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
        real.extend(own.iter().map(|sub| format!("{} {}", command.get_name(), sub.get_name())));
        if own.is_empty() {
            real.insert(command.get_name().to_owned());
        }
    }
    assert_eq!(listed, real.iter().map(String::as_str).collect());
}

#[test]
fn the_configurations_in_the_operations_manual_are_in_order() {
    let text = read("docs/OPERATIONS.md");
    let blocks = fenced(&text, "toml");
    assert!(blocks.len() >= 3, "{blocks:?}");
    let folder = tempfile::tempdir().expect("a folder");
    for block in blocks {
        // A piece stands for a change to the shipped file.
        let routes = if block.contains("[[routes]]") {
            ""
        } else {
            "[[routes]]\nprefix = \"/iiif/2/\"\nupstream = \"https://api.library.tamu.edu/iiif/2/\"\nkind = \"image\"\n\
             [[routes]]\nprefix = \"/\"\nupstream = \"https://api.library.tamu.edu/\"\nkind = \"presentation\"\n"
        };
        let hosts = if block.contains("[server]") {
            ""
        } else {
            "[server]\npublic_hosts = [\"api.library.tamu.edu\"]\n"
        };
        let whole = format!("{hosts}{block}\n{routes}");
        let checked = Settings::from_text(&folder.path().join("config.toml"), &whole, [("", ""); 0]);
        if let Err(errors) = checked {
            panic!("{whole}\n{errors:#}");
        }
    }
}
