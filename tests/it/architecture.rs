//! The house rules, read from the source: who may know whom, how long a file may be, and which names mean nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod names;

/// Modules that each module may name. `outcome` and `observe` are leaves that all may use; `config::settings` is data.
const DEPENDENCIES: [(&str, &[&str]); 18] = [
    ("outcome", &[]),
    ("manual", &[]),
    ("observe", &["outcome", "config"]),
    ("iiif", &[]),
    ("config", &["iiif"]),
    ("upstream", &["config", "iiif", "observe"]),
    ("cluster", &["config", "observe"]),
    ("cache", &["config", "observe", "upstream"]),
    ("index", &["cluster", "config", "iiif", "observe", "upstream"]),
    ("heal", &["cluster", "config", "iiif", "index", "observe", "outcome", "upstream"]),
    ("presentation", &["config", "heal", "iiif", "index", "observe", "outcome", "upstream"]),
    (
        "proxy",
        &["cache", "config", "heal", "iiif", "index", "observe", "outcome", "presentation", "upstream"],
    ),
    ("listen", &["config", "observe", "proxy", "upstream"]),
    ("setup", &["config", "heal", "iiif", "index", "observe"]),
    (
        "admin",
        &["batch", "cache", "config", "heal", "iiif", "index", "observe", "outcome", "setup", "upstream"],
    ),
    ("batch", &["cluster", "config", "heal", "iiif", "index", "observe", "outcome", "setup", "upstream"]),
    ("top", &["config", "iiif", "observe", "upstream"]),
    (
        "app",
        &[
            "admin",
            "batch",
            "cache",
            "cluster",
            "config",
            "heal",
            "index",
            "listen",
            "observe",
            "presentation",
            "proxy",
            "setup",
            "upstream",
        ],
    ),
];

/// Every source file: its path below `src`, and its text without comments.
fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a file");
                found.insert(path.strip_prefix(&root).expect("below src").to_owned(), text);
            }
        }
    }
    assert!(found.len() > 30, "where are the sources?");
    found
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    // Tests may name anybody: a module of tests at the end, or a block for tests. One with a file of its own ends nothing here.
    let mut is_test = false;
    let mut before = "";
    let product = text.lines().filter(move |line| {
        let begins = before == "#[cfg(test)]" && line.ends_with('{');
        (before, is_test) = (line, begins || is_test && before != "}");
        !is_test
    });
    product.map(|line| line.split("//").next().unwrap_or_default())
}

#[test]
fn code_is_what_is_not_for_tests_alone() {
    let text = "a\n#[cfg(test)]\nmod tests;\nb // c\n#[cfg(test)]\nimpl A {\n    d\n}\n\ne\n#[cfg(test)]\nmod tests {\n    f\n}\n";
    let code: Vec<_> = code(text).map(str::trim).filter(|line| line.len() == 1).collect();
    assert_eq!(code, ["a", "b", "e"]);
}

/// A file of tests: by its name, or because its module is declared for tests only.
fn is_test(path: &Path) -> bool {
    if path.iter().any(|part| part == "tests" || part == "tests.rs") {
        return true;
    }
    let is_declared = |module: &Path| {
        let Some(parent) = module.parent() else { return false };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(parent).join("mod.rs");
        let name = module.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        std::fs::read_to_string(file)
            .is_ok_and(|parent| parent.contains(&format!("#[cfg(test)]\nmod {name};")))
    };
    path.ancestors().any(is_declared)
}

fn module_of(path: &Path) -> String {
    let first = path.iter().next().expect("a name").to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The names behind each `crate::`, also those in braces.
fn named(text: &str) -> Vec<String> {
    let text: String = code(text).flat_map(|line| [line, " "]).collect();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0;
                let mut begins = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => begins = true,
                        c if begins && !c.is_whitespace() => {
                            names.push(word(&group[at..]));
                            begins = false;
                        }
                        _ => {}
                    }
                }
            }
            None => names.push(word(rest)),
        }
    }
    names
}

#[test]
fn names_are_found_in_every_way_to_write_them() {
    let text = "use crate::a::b;\nuse crate::{c, d::{e, f}, g as h};\nlet x = crate::i::J; // crate::k\n";
    assert_eq!(named(text), ["a", "c", "d", "g", "i"]);
}

#[test]
fn modules_name_only_those_that_they_may() {
    let mut wrong = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let own = module_of(path);
        // The command line may name every module.
        if matches!(&*own, "main" | "lib" | "cli") {
            continue;
        }
        let Some((_, allowed)) = DEPENDENCIES.iter().find(|(module, _)| *module == own) else {
            wrong.push(format!("{}: DEPENDENCIES does not list this module", path.display()));
            continue;
        };
        for name in named(text) {
            // Other names are macros of this crate.
            let is_module = DEPENDENCIES.iter().any(|(module, _)| *module == name) || name == "cli";
            if is_module && name != own && !allowed.contains(&&*name) {
                wrong.push(format!("{}: {own} must not know {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every path behind `use`, those in braces one by one, and every other path that begins with `crate::` or `super::`.
fn paths(text: &str) -> Vec<String> {
    fn spread(prefix: &str, list: &str, found: &mut Vec<String>) {
        let (mut depth, mut from) = (0, 0);
        for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    match list[from..at].split_once('{') {
                        Some((head, inner)) => {
                            let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
                            spread(&format!("{prefix}{}", head.trim()), inner, found);
                        }
                        None => found.push(format!("{prefix}{}", list[from..at].trim())),
                    }
                    from = at + 1;
                }
                _ => {}
            }
        }
    }
    let text: String = code(text).flat_map(|line| [line, " "]).collect();
    let mut found = Vec::new();
    for (at, _) in text.match_indices("use ") {
        spread("", text[at + 4..].split(';').next().unwrap_or_default(), &mut found);
    }
    for (at, _) in text.match_indices("crate::").chain(text.match_indices("super::")) {
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        found.push(text[at..].chars().take_while(|c| is_path(*c)).collect());
    }
    found
}

#[test]
fn paths_in_braces_are_found_one_by_one() {
    let text = "use super::{a::{b, c::D}, e};\nlet x = crate::f::G::new();\n";
    assert_eq!(paths(text), ["super::a::b", "super::a::c::D", "super::e", "crate::f::G::new", "super::"]);
}

/// Modules that may have cycles. `iiif/manifest` is one recursive descent: an object may stand in an object of any kind.
const MAY_HAVE_CYCLES: [&str; 1] = ["iiif"];

/// Files of a module, each with the files that it names. `mod.rs` is left out, because it names them all; so are tests.
fn dependencies_in(module: &str) -> BTreeMap<String, Vec<String>> {
    let sources = sources();
    let name = |path: &Path| {
        let path = path.with_extension("").to_string_lossy().replace('/', "::");
        path.strip_suffix("::mod").unwrap_or(&path).to_owned()
    };
    let root = Path::new(module).join("mod.rs");
    let files: BTreeMap<_, _> = sources
        .iter()
        .filter(|(path, _)| path.starts_with(module) && **path != root && !is_test(path))
        .map(|(path, text)| (name(path), text))
        .collect();
    let named_by = files.iter().map(|(own, text)| {
        let parent = own.rsplit_once("::").map_or("", |(parent, _)| parent);
        let named = paths(text).into_iter().filter_map(|path| {
            let path = match path.strip_prefix("crate::") {
                Some(path) => path.to_owned(),
                None => format!("{parent}::{}", path.strip_prefix("super::")?),
            };
            let mut file = path.split(' ').next().unwrap_or_default();
            while !files.contains_key(file) {
                file = file.rsplit_once("::")?.0;
            }
            (file != own).then(|| file.to_owned())
        });
        (own.clone(), named.collect())
    });
    named_by.collect()
}

#[test]
fn no_file_names_one_that_leads_back_to_it() {
    let named_by = dependencies_in("heal");
    assert!(named_by.len() > 40 && named_by.values().flatten().count() > 100, "where are the names?");
    for (module, _) in DEPENDENCIES.iter().filter(|(module, _)| !MAY_HAVE_CYCLES.contains(module)) {
        let mut named_by = dependencies_in(module);
        // A file that names none of those left is in no cycle.
        loop {
            let left: Vec<_> = named_by.keys().cloned().collect();
            named_by.retain(|_, named| {
                named.retain(|file| left.contains(file));
                !named.is_empty()
            });
            if named_by.len() == left.len() {
                break;
            }
        }
        assert!(named_by.is_empty(), "a cycle is among these, or behind them: {named_by:#?}");
    }
}

/// Files whose code holds one of these words.
fn that_say(words: &[&str], mut among: impl FnMut(&Path) -> bool) -> Vec<String> {
    let sources = sources();
    let chosen = sources.iter().filter(|(path, _)| !is_test(path) && among(path));
    let saying = chosen.flat_map(|(path, text)| {
        let words = words.iter().filter(|word| code(text).any(|line| line.contains(**word)));
        words.map(|word| format!("{} says {word}", path.display())).collect::<Vec<_>>()
    });
    saying.collect()
}

#[test]
fn iiif_is_pure() {
    let impure =
        ["tokio", "hyper", "Instant", "SystemTime", "std::fs", "TcpStream", "ToSocketAddrs", "tracing"];
    assert_eq!(that_say(&impure, |path| module_of(path) == "iiif"), <[String; 0]>::default());
}

#[test]
fn only_upstream_opens_connections() {
    let opening =
        ["TcpStream::connect", "HttpConnector", "legacy::Client", "client::conn", "lookup_host", "UdpSocket"];
    // The client library for Redis opens its own.
    assert_eq!(that_say(&opening, |path| module_of(path) != "upstream"), <[String; 0]>::default());
}

#[test]
fn nothing_knows_the_testbed() {
    assert_eq!(that_say(&["testbed"], |_| true), <[String; 0]>::default());
}

#[test]
fn nothing_panics_on_purpose() {
    let panicking = [".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];
    assert_eq!(that_say(&panicking, |_| true), <[String; 0]>::default());
}

#[test]
fn no_file_is_longer_than_400_lines() {
    let long = sources().into_iter().map(|(path, text)| (path, text.lines().count()));
    let long: Vec<_> = long.filter(|(_, lines)| *lines > 400).collect();
    assert!(long.is_empty(), "{long:?}");
}

/// What `cargo deny check sources bans` says of the lock file, for those who have not installed it.
#[test]
fn dependencies_come_from_one_place_and_none_is_forbidden() {
    let table = |path: &str| -> toml::Table {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file");
        text.parse().expect("TOML")
    };
    let (lock, deny) = (table("Cargo.lock"), table("deny.toml"));
    let packages = lock["package"].as_array().expect("packages");
    let sources: std::collections::BTreeSet<_> =
        packages.iter().filter_map(|package| package.get("source")?.as_str()).collect();
    assert!(sources.len() == 1 && sources.iter().all(|source| source.contains("crates.io")), "{sources:?}");
    for forbidden in deny["bans"]["deny"].as_array().expect("crates") {
        let name = &forbidden["crate"];
        let wrappers = forbidden.get("wrappers").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        for package in packages {
            let needs = package.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
            let direct =
                needs.filter_map(toml::Value::as_str).any(|need| need.split(' ').next() == name.as_str());
            assert!(!direct || wrappers.contains(&package["name"]), "{} needs {name}", package["name"]);
        }
    }
}
