//! The filter before SQLite: what it lets through, and what becomes of it when the file changes.

use super::*;
use crate::iiif::manifest::{Canvas, Document, DocumentKind};
use crate::index::learn::DocumentLearner;
use crate::index::store::filling::{FilterFill, LARGEST_FILE};

const FILE: &str = "https://images.test/fcrepo/rest/a/b/files/";

/// Has a filter made at once.
fn fill(index: &Index) {
    let mut fill = FilterFill::begin(index.store(), LARGEST_FILE).unwrap();
    while let Some(next) = fill {
        fill = next.step().unwrap();
    }
}

/// Looks for changes, however short a while ago that was done.
fn look(index: &Index) {
    index.next_look.store(0, Ordering::Relaxed);
    index.check_for_changes();
}

fn may_have(index: &Index, key: &str) -> bool {
    index.store().may_have(key, keys::digest(key))
}

fn learn(index: &Index, name: &str, images: &[String]) {
    let document = Document { kind: DocumentKind::Manifest, ..Document::default() };
    let canvas = Canvas { id: format!("{name}/canvas"), label: None, images: images.into() };
    DocumentLearner::new(index).believe(&document, &[canvas], name).unwrap();
}

/// Writes what is no key, as the history does.
fn write_mark(index: &Index, value: u32) {
    index.write(|conn| Ok(conn.execute("INSERT OR REPLACE INTO marks VALUES ('x', ?1)", [value])?)).unwrap();
}

#[test]
fn our_own_writes_leave_the_filter_in_force_and_enter_it() {
    let (bench, index) = built(&[("a.json", &["one"])]);
    assert!(may_have(&index, "unknown"), "no filter yet");
    assert!(FilterFill::begin(index.store(), 4096).unwrap().is_none(), "the file is too large for one");
    fill(&index);
    assert!(may_have(&index, "one") && !may_have(&index, "unknown"));
    assert!(index.owners("unknown").unwrap().is_empty());
    assert_eq!(index.memory.iter().count(), 0, "what is unknown is not remembered");
    write_mark(&index, 1);
    bench.write("b.json", &["two"]);
    bench.refresh(&index);
    let url = format!("{FILE}1.tif");
    let uuid = uuid_of_file_url(&url);
    index.learn_file_url(uuid, &url).unwrap();
    for _ in 0..2 {
        assert!(!may_have(&index, "unknown"), "still in force");
        assert_eq!(canvases_of(&index, "two").len(), 1);
        for key in [uuid.to_string(), format!("{uuid};2")] {
            assert_eq!(canvases_of(&index, &key).len(), 1, "derived of a learned file: {key}");
        }
        look(&index);
    }
    // A long log is emptied after a commit.
    let text = "x".repeat(5 << 20);
    index.write(|conn| Ok(conn.execute("INSERT OR REPLACE INTO marks VALUES ('y', ?1)", [&text])?)).unwrap();
    look(&index);
    assert!(!may_have(&index, "unknown"));
    assert!(
        FilterFill::begin(index.store(), LARGEST_FILE).unwrap().is_none(),
        "none is made while there is one of use"
    );
}

#[test]
fn a_write_of_another_process_and_a_swap_end_the_filter_until_another_is_made() {
    let bench = IndexBench::new();
    let (index, other) = (bench.open(), bench.open());
    fill(&index);
    assert!(!may_have(&index, "one"));
    bench.write("a.json", &["one"]);
    bench.refresh(&other);
    assert!(soon(|| canvases_of(&index, "one").len() == 1));
    assert!(may_have(&index, "unknown"));
    write_mark(&index, 1);
    look(&index);
    assert!(may_have(&index, "unknown"), "our own write does not bring it back");
    fill(&index);
    assert!(may_have(&index, "one") && !may_have(&index, "unknown"));
    bench.write("a.json", &["two"]);
    bench.build(&other);
    look(&index);
    assert!(may_have(&index, "two") && may_have(&index, "unknown"));
    fill(&index);
    assert!(may_have(&index, "two") && !may_have(&index, "unknown"));
}

#[test]
fn an_index_without_a_file_has_no_filter() {
    let bench = IndexBench::new();
    let absent = Index::open_in_any_case(&bench.dir.path().join("none/index.sqlite3"), 10).unwrap().0;
    assert!(absent.is_absent() && FilterFill::begin(absent.store(), LARGEST_FILE).unwrap().is_none());
}

#[test]
fn one_unknown_key_in_a_hundred_goes_to_the_file_and_a_million_keys_take_little_memory() {
    let bench = IndexBench::new();
    let index = bench.open();
    let images: Vec<String> = (0..100_000).map(|number| format!("image-{number}")).collect();
    for (at, images) in images.chunks(1_000).enumerate() {
        learn(&index, &format!("book-{at}"), images);
    }
    fill(&index);
    assert!(images.iter().all(|key| may_have(&index, key)));
    let wrong = (0..100_000).filter(|number| may_have(&index, &format!("unknown-{number}"))).count();
    assert!((200..1_500).contains(&wrong), "{wrong} of 100,000");
    let bytes = index.store().filter.load().as_ref().unwrap().bytes();
    assert!(bytes <= 130_000, "{bytes} bytes for 100,000 keys");
}

#[test]
fn a_filter_that_has_too_many_keys_is_made_anew() {
    let bench = IndexBench::new();
    let index = bench.open();
    fill(&index);
    let images: Vec<String> = (0..30_000).map(|number| format!("image-{number}")).collect();
    learn(&index, "book", &images);
    look(&index);
    assert!(!may_have(&index, "unknown"), "in force all the same");
    let before = index.store().filter.load().as_ref().unwrap().bytes();
    fill(&index);
    assert!(index.store().filter.load().as_ref().unwrap().bytes() > before);
    assert!(may_have(&index, "image-1") && !may_have(&index, "unknown"));
}

/// True if the file has the key; memory is not asked.
fn is_known(conn: &Connection, key: &str) -> bool {
    let count = |sql: &str, value: &dyn rusqlite::ToSql| -> i64 {
        conn.query_row(sql, [value], |row| row.get(0)).unwrap()
    };
    count("SELECT count(*) FROM images WHERE hash = ?1", &keys::hash(key)) > 0
        || keys::uuid_of_key(key).is_some_and(|(uuid, _)| {
            count("SELECT count(*) FROM files WHERE uuid = ?1", &uuid.as_bytes()) > 0
        })
}

/// Two processes over one file, of which the first has a filter.
struct TwoProcesses {
    bench: IndexBench,
    both: [Index; 2],
    filling: Option<FilterFill>,
    random: fastrand::Rng,
    urls: Vec<String>,
    keys: Vec<String>,
    /// The second process makes one change in this many.
    others: u32,
}

impl TwoProcesses {
    fn new(seed: u64) -> Self {
        let bench = IndexBench::new();
        let urls: Vec<String> = (0..8).map(|number| format!("{FILE}{number}.tif")).collect();
        let mut keys: Vec<String> = (0..24).map(|number| format!("image-{number}")).collect();
        for url in &urls {
            let (uuid, sent) = (uuid_of_file_url(url), base64_of_file_url(url));
            let key = crate::iiif::Identifier::new(&sent).key().into_owned();
            keys.extend([key, uuid.to_string(), format!("{uuid};2")]);
        }
        let (both, random) = ([bench.open(), bench.open()], fastrand::Rng::with_seed(seed));
        let others = if seed.is_multiple_of(4) { 4 } else { 40 };
        Self { bench, both, filling: None, random, urls, keys, others }
    }

    /// Changes something, or reads a few rows more.
    fn change(&mut self) {
        let random = &mut self.random;
        let writer = &self.both[usize::from(random.u32(0..self.others) == 0)];
        let images = random.choose_multiple(&self.keys, 2);
        let images: Vec<String> = images.into_iter().cloned().collect();
        match random.u32(0..20) {
            0..6 => learn(writer, &format!("https://images.test/{}", random.u32(0..6)), &images),
            6..8 => {
                let url = random.choice(&self.urls).unwrap();
                writer.learn_file_url(uuid_of_file_url(url), url).unwrap();
            }
            8 => write_mark(writer, random.u32(..)),
            9 => {
                self.bench.write("a.json", &images.iter().map(String::as_str).collect::<Vec<_>>());
                self.bench.refresh_with(writer, Duration::ZERO);
            }
            10 if random.u32(0..3) == 0 => drop(self.bench.build(writer)),
            11 => {
                // Taken back after it was written.
                let undone: Result<(), _> = writer.write(|conn| {
                    conn.execute("INSERT OR IGNORE INTO images VALUES (1, 1)", [])?;
                    Err(IndexError::Refused(String::new()))
                });
                undone.unwrap_err();
            }
            12 => drop(self.both[0].owners(&images[0]).unwrap()),
            _ => {
                for _ in 0..random.u32(1..9) {
                    self.filling = match self.filling.take() {
                        Some(fill) => fill.step().unwrap(),
                        None => FilterFill::begin(self.both[0].store(), LARGEST_FILE).unwrap(),
                    };
                    if let Some(fill) = &mut self.filling {
                        fill.step = 4;
                    }
                }
            }
        }
    }
}

#[test]
fn no_key_that_the_file_has_is_ever_taken_for_unknown() {
    let (mut known, mut unknown, mut settled) = (0, 0, 0);
    for seed in 0..40 {
        let mut two = TwoProcesses::new(seed);
        for at in 0..60 {
            // Several things happen before a change is noticed.
            for _ in 0..two.random.u32(1..4) {
                two.change();
            }
            let index = &two.both[0];
            look(index);
            settled += u32::from(!may_have(index, "never in any manifest"));
            let conn = Connection::open(two.bench.path()).unwrap();
            for key in &two.keys {
                let (is, may) = (is_known(&conn, key), may_have(index, key));
                assert!(may || !is, "seed {seed}, step {at}: {key}");
                known += u32::from(is);
                unknown += u32::from(!may);
            }
        }
    }
    assert!(known > 10_000 && unknown > 10_000 && settled > 500, "{known}, {unknown}, {settled}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_is_kept_while_two_processes_write() {
    let bench = IndexBench::new();
    let (index, other) = (Arc::new(bench.open()), bench.open());
    let keeping = tokio::spawn(keep_filter(Arc::clone(&index)));
    assert!(soon_or_later(|| !may_have(&index, "unknown")), "made by itself");
    for number in 0..60 {
        let [ours, theirs] = ["ours", "theirs"].map(|whose| format!("{whose}-{number}"));
        assert!(index.owners(&ours).unwrap().is_empty());
        learn(&index, &ours, std::slice::from_ref(&ours));
        assert_eq!(index.owners(&ours).unwrap().len(), 1, "at once");
        if number % 20 == 7 {
            assert!(index.owners(&theirs).unwrap().is_empty());
            learn(&other, &theirs, std::slice::from_ref(&theirs));
            assert!(soon(|| index.owners(&theirs).unwrap().len() == 1));
            assert!(soon_or_later(|| {
                look(&index);
                !may_have(&index, "unknown")
            }));
        }
    }
    keeping.abort();
}

fn soon_or_later(mut is: impl FnMut() -> bool) -> bool {
    (0..60).any(|_| soon(&mut is))
}
