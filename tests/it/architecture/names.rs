//! Names and comments: which ones mean nothing, stand for two things, or are a picture.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{is_test, sources};

#[test]
fn no_name_is_one_that_says_nothing() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let defined = text.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let at =
                words.iter().position(|word| matches!(*word, "struct" | "enum" | "trait" | "mod" | "fn"))?;
            words.get(at + 1).map(|name| (*name).to_owned())
        });
        for name in defined.chain([stem]) {
            let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let snake: String = name
                .chars()
                .flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain(c.to_lowercase()))
                .collect();
            let banned =
                ["manager", "handler", "helper", "util", "utils", "common", "misc", "helpers", "handlers"];
            if snake.split('_').any(|part| banned.contains(&part)) {
                wrong.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The types that a file defines, by their names. (Associated types are indented, and are none.)
fn types(text: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let defined = text.lines().filter_map(|line| {
        let bare = line.trim_start();
        let bare =
            bare.strip_prefix("pub(").and_then(|rest| rest.split_once(") ")).map_or(bare, |(_, rest)| rest);
        let (kind, rest) = bare.strip_prefix("pub ").unwrap_or(bare).split_once(' ')?;
        let is_type = matches!(kind, "struct" | "enum" | "trait" | "union");
        (is_type || kind == "type" && !line.starts_with(' ')).then(|| name(rest))
    });
    defined.filter(|name| name.starts_with(char::is_uppercase)).collect()
}

#[test]
fn types_are_found_however_visible_they_are() {
    let text = "pub struct A;\n    pub(in crate::heal) enum B {\ntrait C {}\npub(crate) type D<'a> = X;\nfn e() {}\n";
    assert_eq!(types(text), ["A", "B", "C", "D"]);
}

#[test]
fn no_two_types_have_the_same_name() {
    // What a trait or a library prescribes.
    const MAY_COME_TWICE: [&str; 5] = ["Data", "Error", "Output", "Target", "Value"];
    let mut all: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (path, text) in sources() {
        for name in types(&text) {
            all.entry(name).or_default().push(path.clone());
        }
    }
    assert!(all.len() > 500, "where are the types?");
    all.retain(|name, files| files.len() > 1 && !MAY_COME_TWICE.contains(&&**name));
    assert!(all.is_empty(), "{all:#?}");
}

/// Words of pictures (a hospital, an airport, a hotel, a theatre, speech), and participles that leave out whose they are.
/// A name is a word of HTTP, IIIF, Rust or operations.
const PICTURES: [&str; 52] = [
    "Aim", "Air", "Asked", "Asking", "Barred", "Boarding", "Chores", "Course", "Crew", "Desk", "Diary",
    "Doors", "Errand", "Found", "Gathered", "Got", "Hall", "Heard", "House", "Judged", "Keeper", "Keeping",
    "Kept", "Known", "Landed", "Landing", "Lobby", "Made", "Manner", "Manners", "Mends", "Mended", "Patient",
    "Press", "Pulse", "Purse", "Remarks", "Said", "Seat", "Seen", "Shelf", "Showcase", "Showing", "Speech",
    "Surgeon", "Told", "Treated", "Trouble", "Trunk", "Wanted", "Ward", "Wish",
];

#[test]
fn no_type_is_named_by_a_picture() {
    let mut wrong = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        for name in types(text) {
            if PICTURES.contains(&&*name) {
                wrong.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn doc_comments_name_their_subject() {
    // A line that begins with a pronoun makes the reader look for its noun elsewhere. A few say what clap and the schema print.
    const PRONOUNS: [&str; 16] = [
        "It", "Its", "They", "Their", "This", "That", "These", "Those", "He", "His", "We", "Our", "One",
        "Such", "Who", "Whose",
    ];
    let mut found = Vec::new();
    for (path, text) in sources() {
        for line in text.lines().map(str::trim_start) {
            let comment = ["/// ", "//! "].iter().find_map(|start| line.strip_prefix(start));
            let first = comment.and_then(|comment| comment.split(|c: char| !c.is_alphabetic()).next());
            if first.is_some_and(|first| PRONOUNS.contains(&first)) {
                found.push(format!("{}: {line}", path.display()));
            }
        }
    }
    assert!(found.len() < 30, "{found:#?}");
}
