//! Finds and reads the documents of a directory.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::WalkDir;

use super::sources::Problem;
use crate::iiif::manifest::{self, Canvas, Document, WalkError};

/// Larger files are read in pieces, so that memory does not grow with them.
const WHOLE: u64 = 8 << 20;

/// Directories within directories that are followed.
const DEPTH: usize = 64;

/// What a file looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looks {
    /// Bytes.
    pub(super) size: i64,
    /// Unix nanoseconds.
    pub(super) modified: i64,
}

impl Looks {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|found| Self::from_metadata(&found))
    }

    fn from_metadata(found: &Metadata) -> Self {
        let since = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        Self { size: i64::try_from(found.len()).unwrap_or(i64::MAX), modified }
    }
}

/// A document that was read to its end.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) document: Document,
    pub(super) looks: Looks,
    pub(super) hash: [u8; 32],
}

/// The `*.json` files of a directory in the order of their names, or the file itself. Links are followed,
/// but never in circles. What cannot be looked at is a problem among them.
pub(super) fn find(path: &Path) -> impl Iterator<Item = Result<PathBuf, Problem>> {
    WalkDir::new(path).follow_links(true).max_depth(DEPTH).sort_by_file_name().into_iter().filter_map(
        |entry| match entry {
            // A file that is named by itself is read whatever its name ends in.
            Ok(entry) if entry.file_type().is_file() && (entry.depth() == 0 || is_json(entry.path())) => {
                Some(Ok(entry.into_path()))
            }
            Ok(_) => None,
            // Not a problem: what the link leads to is being read anyway.
            Err(error) if error.loop_ancestor().is_some() => None,
            Err(error) => {
                let path = error.path().unwrap_or(path).to_path_buf();
                let message = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                Some(Err(Problem::unreadable(&path, message)))
            }
        },
    )
}

pub(super) fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"))
}

/// Reads one file, handing out its canvases. On a problem, canvases handed out before do not count.
pub(super) fn read(path: &Path, each: &mut dyn FnMut(Canvas)) -> Result<Reading, Problem> {
    let unreadable = |error: io::Error| Problem::unreadable(path, error.to_string());
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let looks = Looks::from_metadata(&metadata);
    let broken = |error: WalkError| Problem::broken(&path.display().to_string(), &error);
    if metadata.len() <= WHOLE {
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
        file.read_to_end(&mut bytes).map_err(unreadable)?;
        // Broken in the way in which the canvas service breaks its JSON, it still tells the same pairs.
        let (document, canvases) = manifest::read(&bytes).map_err(broken)?;
        canvases.into_iter().for_each(each);
        return Ok(Reading { document, looks, hash: blake3::hash(&bytes).into() });
    }
    let mut tee = Tee { inner: file, hasher: blake3::Hasher::new() };
    let document = manifest::walk(&mut tee, each).map_err(broken)?;
    io::copy(&mut tee, &mut io::sink()).map_err(unreadable)?;
    Ok(Reading { document, looks, hash: tee.hasher.finalize().into() })
}

/// BLAKE3 of a file, as [`read`] would tell it.
pub(super) fn hash(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().into())
}

/// Hashes what is read through it.
struct Tee<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
