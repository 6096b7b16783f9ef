//! Golden test of the messages for every kind of bad configuration: `golden/cases.txt` holds the configurations, the
//! snapshot the output of `config check`. `INSTA_UPDATE=always cargo test --lib golden` writes the snapshot anew.

use std::fmt::Write as _;

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::super::command::write_errors;
use super::{ROUTES, load};

/// A bad configuration.
struct GoldenCase<'a> {
    name: &'a str,
    text: String,
    env: Vec<(&'a str, &'a str)>,
}

impl<'a> GoldenCase<'a> {
    /// Reads the text after `=== `: the name, then lines of the file, and directives that begin with `%`.
    fn read(block: &'a str) -> Self {
        let mut lines = block.lines();
        let mut case = Self { name: lines.next().unwrap_or_default(), text: String::new(), env: Vec::new() };
        let (mut before, mut end) = ("", "\n");
        for line in lines {
            match (line, line.strip_prefix("%env ").and_then(|set| set.split_once('='))) {
                (_, Some(variable)) => case.env.push(variable),
                ("%routes", _) => case.text.push_str(ROUTES),
                ("%bom", _) => before = "\u{feff}",
                ("%crlf", _) => end = "\r\n",
                ("%cr", _) => end = "\r",
                _ => case.text = format!("{}{line}\n", case.text),
            }
        }
        case.text = format!("{before}{}", case.text.replace('\n', end));
        case
    }
}

#[test]
fn bad_configurations_are_told_what_they_always_were() {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(120);
    let blocks = include_str!("golden/cases.txt").split("=== ").skip(1);
    let cases: Vec<GoldenCase<'_>> = blocks.map(GoldenCase::read).collect();
    assert!(cases.len() > 150, "where are the cases?");
    let mut told = String::new();
    for case in &cases {
        let errors = load(&case.text, &case.env).expect_err(case.name);
        assert!(
            errors.0.iter().all(|error| !error.help.is_empty()),
            "{}: a mistake says what to do",
            case.name
        );
        let mut drawn = Vec::new();
        write_errors(&errors, &handler, &mut drawn).expect("a vector takes everything");
        let drawn = String::from_utf8(drawn).expect("text");
        writeln!(told, "=== {}\n{errors:#}\n{drawn}", case.name).expect("a text takes everything");
    }
    // The snapshot file does not keep line ends.
    insta::assert_snapshot!("bad_configurations", told.replace('\r', "␍"));
}
