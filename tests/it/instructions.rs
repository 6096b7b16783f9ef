//! What the docs tell people to run and to ask for is there: every command is parsed, every path is routed.

use std::collections::BTreeSet;
use std::path::Path;

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use iiif_mender::cli::Cli;
use regex::Regex;

use crate::docs::{pages, read};

/// Pages of the dashboard, which the description of the API leaves out.
const PAGES: [&str; 6] = ["/", "/collections", "/heals", "/search", "/setup", "/manifests/"];

/// Every page for people, and the alerts with their runbooks.
fn texts() -> Vec<(String, String)> {
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let docs = pages().into_iter().map(|page| (name(&page), std::fs::read_to_string(&page).expect("text")));
    let more = ["deploy/prometheus/alerts.yml", "deploy/systemd/iiif-mender.service", "config.toml"];
    docs.chain(more.map(|path| (path.to_owned(), read(path)))).collect()
}

/// Text for people, with code in backticks; anything else is code, line by line.
fn is_prose(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|kind| kind == "md" || kind == "yml")
}

/// What stands in code: fenced blocks of shells and units, pieces in backticks, and comments of the configuration.
fn code(name: &str, text: &str) -> Vec<String> {
    if !is_prose(name) {
        return text.lines().map(|line| line.trim_start_matches(['#', ' ']).to_owned()).collect();
    }
    let (mut all, mut language) = (Vec::new(), None);
    let inline = Regex::new("`([^`]+)`").expect("a pattern");
    for line in text.lines() {
        match (line.strip_prefix("```"), language) {
            (Some(_), Some(_)) => language = None,
            (Some(opened), None) => language = Some(opened),
            (None, Some("sh" | "ini" | "cron" | "systemd")) => all.push(line.to_owned()),
            (None, Some(_)) => {}
            (None, None) => all.extend(inline.captures_iter(line).map(|found| found[1].to_owned())),
        }
    }
    all
}

/// The words of a command as a shell would make them, up to where another command, a redirection or a comment begins.
fn words(text: &str) -> Vec<String> {
    let (mut all, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '|' | '>' | '<' | ';' | '#' | '&') => break,
            (None, c) if c.is_whitespace() => {
                all.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
            }
            (_, c) => word.push(c),
        }
    }
    // `2> file`: the number belongs to the redirection.
    all.extend(Some(word).filter(|word| !word.is_empty() && word != "2"));
    all
}

#[test]
fn words_are_those_of_a_shell() {
    assert_eq!(words("heal --job \"$(date +%F)\" a/ # all"), ["heal", "--job", "$(date +%F)", "a/"]);
    assert_eq!(words("serve 2> serve.log &"), ["serve"]);
    assert_eq!(words("heal | tail -n 1"), ["heal"]);
}

#[test]
fn every_command_in_the_docs_is_one() {
    let called = Regex::new(r"^(?:.*[\s=/])?iiif-mender +([a-z-].*)").expect("a pattern");
    let mut commands = BTreeSet::new();
    for (name, text) in texts() {
        for piece in code(&name, &text) {
            // A comment that begins with our name is none of a command.
            let is_comment =
                !is_prose(&name) && !piece.contains("iiif-mender --") && !piece.starts_with("iiif-mender ");
            let Some(found) = called.captures(&piece).filter(|_| !is_comment) else { continue };
            // What stands behind two spaces in a list explains it.
            let arguments = found[1].split("  ").next().unwrap_or_default().trim_end_matches([' ', '…']);
            let arguments = words(arguments);
            let all = std::iter::once("iiif-mender".to_owned()).chain(arguments.clone());
            // A command may be named without its arguments.
            let is_named = |kind| matches!(kind, ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelp);
            match Cli::command().try_get_matches_from(all) {
                Err(error) if !is_named(error.kind()) => panic!("{name}: `{piece}`\n{error}"),
                _ => {}
            }
            commands.insert(arguments.join(" "));
        }
    }
    assert!(commands.len() > 25, "{commands:#?}");
}

#[test]
fn every_path_in_the_docs_is_routed() {
    let api: serde_json::Value = serde_json::from_str(&read("src/admin/openapi.json")).expect("JSON");
    let described = |path: &str| {
        let path = path.trim_end_matches(['.', ',', ')']).split(['?', '#']).next().unwrap_or_default();
        api["paths"].get(path).map(|operations| operations.as_object().expect("operations"))
    };
    // Method and path; a path of the API alone; a URL of the admin listener.
    let asked = Regex::new(r"\b(GET|HEAD|POST|PUT|DELETE) (/[^\s`|…]*)").expect("a pattern");
    let named = Regex::new(r"(/api/v1/[a-z{}/.]*[a-z}])").expect("a pattern");
    let opened = Regex::new(r"127\.0\.0\.1:9090(/[^\s`)<>|]*)").expect("a pattern");
    let (mut methods, mut paths) = (0, 0);
    for (name, text) in texts() {
        for found in asked.captures_iter(&text) {
            let operations =
                described(&found[2]).unwrap_or_else(|| panic!("{name}: {} is not there", &found[0]));
            let method = if &found[1] == "HEAD" { "get".to_owned() } else { found[1].to_lowercase() };
            assert!(operations.contains_key(&method), "{name}: {} takes another method", &found[0]);
            methods += 1;
        }
        for found in named.captures_iter(&text) {
            assert!(described(&found[1]).is_some(), "{name}: {} is not there", &found[1]);
            paths += 1;
        }
        for found in opened.captures_iter(&text) {
            let is_page = PAGES.contains(&&found[1]) || described(&found[1]).is_some();
            assert!(is_page, "{name}: {} is not there", &found[1]);
            paths += 1;
        }
    }
    assert!(methods >= 8 && paths >= 8, "{methods} {paths}");
}

#[test]
fn every_act_that_the_manual_names_is_one() {
    let (text, api) = (read("docs/OPERATIONS.md"), read("src/admin/openapi.json"));
    let (_, acts) = text.split_once("and takes `POST` for ").expect("a list of acts");
    let acts = acts.split(":\n").next().unwrap_or_default();
    let names: Vec<_> = Regex::new("`([a-z/]+)`")
        .expect("a pattern")
        .captures_iter(acts)
        .map(|it| it[1].to_owned())
        .collect();
    assert_eq!(names.len(), 9, "{names:?}");
    for name in names {
        assert!(api.contains(&format!("\"/api/v1/{name}\"")), "{name}");
    }
}
