//! A disk that is full: serving goes on, what cannot be written says so, and with space again all is well.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use iiif_mender::iiif::identifier::uuid_of_file_url;
use iiif_mender::index::{Index, IndexError};
use testbed::Testbed;

use super::{Answer, Library, is_known, key};
use crate::support::world::{World, patiently};

/// A small disk of its own; unmounted when dropped.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None` where this user may not mount a disk. It is said past the test's captured output, as `readonly::may` does.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(folder.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        let _written = writeln!(std::io::stderr(), "LEFT OUT: a full disk: needs root, to mount a tmpfs");
        None
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("index.sqlite3")
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    /// Takes all the space there is.
    fn fill(&self) {
        let mut filler = fs::File::options().create(true).append(true).open(self.filler()).unwrap();
        while filler.write_all(&[0x55; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

/// Long enough that a few of them need new pages.
fn file_url(number: usize) -> String {
    format!("https://api.library.tamu.edu/fcrepo/rest/{}/files/{number}.tif", "x".repeat(900))
}

fn learn(index: &Index, number: usize) -> Result<(), IndexError> {
    let url = file_url(number);
    index.learn_file_url(uuid_of_file_url(&url), &url)
}

fn learned(index: &Index, number: usize) -> bool {
    let url = file_url(number);
    index.file_url(uuid_of_file_url(&url)).unwrap().as_deref() == Some(&*url)
}

/// Learns until there is no space left; answers how many were learned.
fn learn_until_full(index: &Index, disk: &Disk) -> usize {
    for number in 0..10_000 {
        disk.fill();
        if let Err(error) = learn(index, number) {
            assert!(matches!(error, IndexError::Full { .. }), "{error}");
            assert!(error.to_string().contains("Free some space and try again"), "{error}");
            return number;
        }
    }
    panic!("the disk never was full");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_viewers_are_served_and_healed_and_learning_resumes_with_space() {
    let Some(disk) = Disk::mount("4m") else { return };
    let bed = Testbed::builder().book("obj/book", 4).page_size(64, 64).start().await;
    let more = format!("index.path = {}\nheal.ladder = visit\nheal.ahead = 0", disk.path().display());
    let world = World::over(bed, &more).await;
    let index = &world.app.index;
    let learned = learn_until_full(index, &disk);
    let pages = world.bed.pages();
    world.bed.expires_everything();
    for page in &pages {
        let tile = world.get(&page.image_path("full/64,/0/default.jpg")).await;
        assert!(tile.header("heal-status").starts_with("healed"), "{:?}", tile.headers);
        assert!(is_known(index, &page.identifier));
    }
    let (event, taken_in) = (|kind| world.events(kind), |kind| world.learned(kind));
    // SQLite's own housekeeping may free a page now and then: it is filled again before each document.
    for path in pages.iter().map(|page| &page.canvas_path).chain([&pages[0].presentation_path]) {
        disk.fill();
        world.get(path).await;
    }
    patiently("nothing can be written", || taken_in("learn_failed") >= 1.0 && event("history_failed") >= 1.0)
        .await;
    disk.free();
    (0..=learned).for_each(|number| learn(index, number).unwrap());
    world.get(&pages[0].presentation_path).await;
    patiently("it is learned", || taken_in("learned") >= 1.0).await;
}

#[test]
fn a_build_on_a_full_disk_says_so_leaves_the_old_index_and_works_with_space_again() {
    let Some(disk) = Disk::mount("2m") else { return };
    let library = Library::new();
    library.configure(&disk.path());
    library.write(50, 0);
    library.run(&["index", "build"]).succeeds();
    disk.fill();
    library.write(50, 1);
    for work in ["build", "refresh"] {
        library.run(&["index", work]).fails(1, "no space left", "Free some space and try again");
        library.run(&["index", "lookup", &key(49, 0, 0)]).succeeds();
    }
    assert!(disk.names().iter().all(|name| !name.contains(".g2")), "{:?}", disk.names());
    // Who starts on the full disk finds what was there, and later what is written once there is space.
    let index = Index::open(&disk.path(), 10).unwrap();
    assert!(is_known(&index, &key(49, 0, 0)));
    assert!(matches!(learn(&index, 0), Err(IndexError::Full { .. })));
    disk.free();
    learn(&index, 0).unwrap();
    assert!(learned(&index, 0), "at once, what was written here");
    library.run(&["index", "refresh"]).succeeds();
    std::thread::sleep(std::time::Duration::from_millis(250));
    assert!(is_known(&index, &key(49, 1, 0)), "and soon, what others wrote");
    library.write(50, 2);
    library.run(&["index", "build"]).succeeds();
    library.run(&["index", "lookup", &key(49, 2, 0)]).succeeds();
}

#[test]
fn an_index_that_cannot_even_be_begun_says_why() {
    let Some(disk) = Disk::mount("64k") else { return };
    disk.fill();
    let library = Library::new();
    library.configure(&disk.path());
    library.write(1, 0);
    library.run(&["index", "build"]).fails(1, "no space left", "Free some space");
    disk.free();
    let _ = fs::remove_file(Path::new(&disk.path()));
}

#[test]
fn a_file_size_limit_is_told_as_such_and_leaves_the_old_index() {
    let library = Library::new();
    library.write(40, 0);
    library.run(&["index", "build"]).succeeds();
    library.write(400, 1);
    let mender = library.mender(&["index", "build"]);
    let mut limited = Command::new("sh");
    // In blocks of 512 bytes; without the trap the kernel would kill it.
    limited.args(["-c", r#"trap "" XFSZ; ulimit -f 128; exec "$0" "$@""#]);
    limited.arg(mender.get_program()).args(mender.get_args());
    let told = Answer::of(&limited.output().unwrap());
    told.fails(1, "the index could not be read or written", "file size limit");
    library.run(&["index", "lookup", &key(39, 0, 0)]).succeeds();
    library.run(&["index", "build"]).succeeds();
    library.run(&["index", "lookup", &key(399, 1, 0)]).succeeds();
}
