//! Files that are not what they should be: each is told with its cure, and the cure works.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use iiif_mender::iiif::identifier::uuid_of_file_url;
use iiif_mender::index::Index;
use rusqlite::Connection;

use super::{Answer, Library, is_known, key};

const MANIFESTS: usize = 60;

fn built() -> Library {
    let library = Library::new();
    library.write(MANIFESTS, 0);
    library.run(&["index", "build"]).succeeds();
    library
}

impl Library {
    /// Every command that needs the index says the same, and so does `serve`.
    fn tells(&self, exit: i32, wrong: &str, cure: &str) {
        self.run(&["index", "lookup", &key(1, 0, 0)]).fails(exit, wrong, cure);
        self.run(&["index", "refresh"]).fails(exit, wrong, cure);
    }

    /// `index build` makes it good again.
    fn is_cured_by_a_build(&self) {
        self.run(&["index", "build"]).succeeds();
        self.run(&["index", "lookup", &key(MANIFESTS - 1, 0, 0)]).succeeds();
    }
}

#[test]
fn a_file_cut_short_is_told_and_a_build_makes_a_new_one() {
    let library = built();
    let file = fs::canonicalize(library.path()).unwrap();
    let length = fs::metadata(&file).unwrap().len();
    fs::File::options().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
    library.tells(1, "the index is damaged", "`iiif-mender index build` makes a new one");
    library.is_cured_by_a_build();
    let beside = fs::read_dir(library.path().parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let aside = beside.filter(|path| path.to_string_lossy().contains(".damaged-")).collect::<Vec<_>>();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(fs::metadata(&aside[0]).unwrap().len(), length / 2, "the damaged one is kept");
}

#[test]
fn a_file_damaged_behind_its_first_page_is_told_and_a_build_makes_a_new_one() {
    let library = built();
    let file = fs::canonicalize(library.path()).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[4096..].fill(0xa5);
    fs::write(&file, bytes).unwrap();
    let cure = "`iiif-mender index build` makes a new one";
    library.run(&["index", "lookup", &key(1, 0, 0)]).fails(1, "the index is damaged", cure);
    library.is_cured_by_a_build();
}

#[test]
fn a_file_of_another_program_is_refused_and_left_alone() {
    for text in ["[server]\nlisten = \"a configuration\"\n", "{}"] {
        let library = Library::new();
        fs::write(library.path(), text).unwrap();
        library.tells(2, "it is not an SQLite file", "Let `[index] path` name another file");
        library.run(&["index", "build"]).fails(2, "nothing was touched", "[index] path");
        assert_eq!(fs::read_to_string(library.path()).unwrap(), text);
    }
    let library = Library::new();
    Connection::open(library.path()).unwrap().execute_batch("CREATE TABLE bookmarks (url)").unwrap();
    library.tells(2, "another program's SQLite file", "Let `[index] path` name another file");
    library.run(&["index", "build"]).fails(2, "nothing was touched", "[index] path");
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let library = built();
    let file = fs::canonicalize(library.path()).unwrap();
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    library.tells(2, "made by a newer iiif-mender (schema 99", "Run the newer version");
    library.run(&["index", "build"]).fails(2, "schema 99", "let `[index] path` name another file");
}

#[test]
fn without_its_log_the_index_is_what_it_was_before_and_with_it_all_is_there() {
    let library = built();
    let index = library.open();
    let url = "https://api.library.tamu.edu/fcrepo/rest/late/files/1.tif";
    index.learn_file_url(uuid_of_file_url(url), url).unwrap();
    let file = fs::canonicalize(library.path()).unwrap();
    let log = format!("{}-wal", file.display());
    assert!(fs::metadata(&log).unwrap().len() > 0);
    // What a killed process leaves, without and with the log.
    for has_log in [false, true] {
        let elsewhere = library.folder.path().join(format!("copy-{has_log}.sqlite3"));
        fs::copy(&file, &elsewhere).unwrap();
        if has_log {
            fs::copy(&log, format!("{}-wal", elsewhere.display())).unwrap();
        }
        let copy = Index::open(&elsewhere, 10).unwrap();
        assert!(is_known(&copy, &key(7, 0, 2)));
        assert_eq!(copy.file_url(uuid_of_file_url(url)).unwrap().is_some(), has_log);
        copy.learn_file_url(uuid_of_file_url(url), url).unwrap();
    }
}

#[test]
fn in_a_directory_that_may_not_be_written_lookups_work_and_writing_says_what_is_missing() {
    let library = built();
    if !may_be_nobody() {
        return;
    }
    fs::set_permissions(library.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = |words: &[&str]| run_as_nobody(&library, words);
    run(&["index", "lookup", &key(3, 0, 1)]).succeeds();
    run(&["index", "stats"]).succeeds();
    run(&["index", "history"]).succeeds();
    let (wrong, cure) =
        ("the index cannot be written", "Give this user write access to the file and its directory");
    run(&["index", "refresh"]).fails(1, wrong, cure);
    run(&["index", "add", "more"]).fails(1, wrong, cure);
    run(&["index", "build"]).fails(1, wrong, cure);
    // An index of the first version: it has no history, and nobody can give it one.
    let file = fs::canonicalize(library.path()).unwrap();
    let first = "DROP TABLE heals; PRAGMA user_version = 1;";
    Connection::open(&file).unwrap().execute_batch(first).unwrap();
    run(&["index", "lookup", &key(3, 0, 1)]).succeeds();
    let history = run(&["index", "history"]);
    assert_eq!((history.exit, &*history.stdout), (Some(0), ""), "{history:?}");
}

/// User and group of one who may read everything here and write nothing.
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// False, and said aloud, where this user cannot become another one.
fn may_be_nobody() -> bool {
    crate::readonly::may("a read-only directory", &[&["setpriv"][..], &NOBODY].concat())
}

fn run_as_nobody(library: &Library, words: &[&str]) -> Answer {
    let mender = library.mender(words);
    let mut command = Command::new("setpriv");
    command.args(NOBODY).arg(mender.get_program()).args(mender.get_args()).current_dir("/");
    Answer::of(&command.output().unwrap())
}
