//! What is shipped for those who watch it: every metric that it names exists, every alert leads to what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;

use crate::docs::scraped;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// The expressions of the dashboard, with the title of their panel.
fn panels() -> Vec<(String, String)> {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana/iiif-mender.json")).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            // The table of broken images comes from the admin API.
            found.extend(target["expr"].as_str().map(|expr| (text(&panel["title"]), expr.to_owned())));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
        found.push((text(&annotation["name"]), text(&annotation["expr"])));
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        found.extend(
            variable["query"]["query"].as_str().map(|query| (text(&variable["name"]), query.to_owned())),
        );
    }
    found
}

/// The alerts: name, expression, runbook. The file is read by its lines: each alert is a list item, each
/// expression one line or a folded block.
fn alerts() -> BTreeMap<String, (String, String)> {
    let text = read("deploy/prometheus/alerts.yml");
    let mut found = BTreeMap::new();
    for rule in text.split("      - alert: ").skip(1) {
        let name = rule.lines().next().expect("a name").to_owned();
        let (_, behind) = rule.split_once("expr: ").expect("an expression");
        let end = ["\n        for:", "\n        labels:"].iter().filter_map(|next| behind.find(next)).min();
        let expression = behind[..end.expect("labels")].trim_start_matches(">-").trim().to_owned();
        let runbook = rule.lines().find_map(|line| line.trim().strip_prefix("runbook: "));
        assert!(rule.contains("summary: ") && rule.contains("severity: "), "{name}");
        found.insert(name, (expression, runbook.expect("a runbook").to_owned()));
    }
    found
}

/// Names of series in an expression, each with the labels that it is narrowed by.
fn series(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let name = Regex::new(r"\b((?:iiif_mender|process)_[a-z_]+)(?:\{([^}]*)\})?").expect("a pattern");
    let label = Regex::new(r"(\w+)\s*(?:=~|!=|!~|=)").expect("a pattern");
    let labels = |text: &str| label.captures_iter(text).map(|found| found[1].to_owned()).collect();
    let found = name.captures_iter(expression);
    found.map(|found| (found[1].to_owned(), labels(found.get(2).map_or("", |text| text.as_str())))).collect()
}

#[test]
fn every_metric_and_label_of_dashboard_and_alerts_is_in_the_scrape() {
    let known = scraped();
    let alerts = alerts().into_iter().map(|(name, (expression, _))| (name, expression));
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (place, expression) in panels().into_iter().chain(alerts) {
        for (name, labels) in series(&expression) {
            seen += 1;
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let Some(own) = known.get(&name).or_else(|| known.get(base?)) else {
                wrong.push(format!("{place}: {name} does not exist"));
                continue;
            };
            let prometheus = |label: &String| ["instance", "job", "le"].contains(&label.as_str());
            let unknown = labels.iter().filter(|label| !own.contains(*label) && !prometheus(label));
            wrong.extend(unknown.map(|label| format!("{place}: {name} has no label {label}")));
        }
    }
    assert!(seen > 60, "only {seen} series were found");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn expressions_are_balanced() {
    let alerts = alerts().into_iter().map(|(name, (expression, _))| (name, expression));
    for (place, expression) in panels().into_iter().chain(alerts) {
        for pair in ["()", "{}", "[]"] {
            let count = |c: char| expression.matches(c).count();
            let (open, close) = (pair.chars().next().expect("two"), pair.chars().nth(1).expect("two"));
            assert_eq!(count(open), count(close), "{place}: {expression}");
        }
        assert_eq!(expression.matches('"').count() % 2, 0, "{place}: {expression}");
    }
}

#[test]
fn every_alert_leads_to_its_paragraph_and_every_paragraph_has_an_alert() {
    let manual = read("docs/OPERATIONS.md");
    let (_, chapter) = manual.split_once("## Dashboard and alerts\n").expect("a chapter");
    let chapter = chapter.split("\n## ").next().expect("its text");
    let anchor = |title: &str| {
        let kept = title.to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || " -".contains(*c))
            .collect::<String>()
            .replace(' ', "-")
    };
    let paragraphs: BTreeSet<_> =
        chapter.lines().filter_map(|line| line.strip_prefix("### ")).map(anchor).collect();
    let home = "OPERATIONS.md#";
    let linked: BTreeSet<_> = alerts()
        .into_iter()
        .map(|(name, (_, runbook))| {
            runbook.strip_prefix(home).unwrap_or_else(|| panic!("{name}: {runbook}")).to_owned()
        })
        .collect();
    assert_eq!(linked, paragraphs);
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana/iiif-mender.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let source = if panel["type"] == "table" { "${infinity}" } else { "${datasource}" };
        assert_eq!(panel["datasource"]["uid"], source, "{}", panel["title"]);
        let place = &panel["gridPos"];
        assert!(
            place["x"].as_u64().expect("x") + place["w"].as_u64().expect("w") <= 24,
            "{}",
            panel["title"]
        );
    }
}

/// The packages and the image install the file that a newcomer reads, with the index where their user may write.
#[test]
fn the_installed_configuration_is_the_shipped_one_with_a_place_for_the_index() {
    let (here, there) =
        ("path = \"iiif-mender.sqlite3\"", "path = \"/var/lib/iiif-mender/iiif-mender.sqlite3\"");
    let shipped = read("config.toml");
    assert_eq!(shipped.lines().filter(|line| line.starts_with(here)).count(), 1);
    let change = format!("'s|^{here}|{there}|' config.toml");
    for script in ["deploy/release.sh", "deploy/Dockerfile"] {
        assert!(read(script).contains(&change), "{script} does not install it");
    }
    let cargo = read("Cargo.toml");
    for installed in ["target/package/config.toml", "target/package/defaults.toml"] {
        assert_eq!(cargo.matches(installed).count(), 2, "both packages have {installed}");
    }
}
