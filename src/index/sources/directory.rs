//! Finds and reads the documents of a directory.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::WalkDir;

use crate::iiif::image_url::ImageBases;
use crate::iiif::manifest::{self, Canvas, Document, WalkError};
use crate::index::now;
use crate::index::sources::problem::SourceProblem;
use crate::index::store::writer::DocumentMeta;
use crate::upstream::coding::unpacked;

/// Larger files are read in pieces, so that memory does not grow with them.
const WHOLE: u64 = 8 << 20;

/// Bytes read from a file at once.
const BUFFER: usize = 64 << 10;

/// Directories within directories that are followed.
const DEPTH: usize = 64;

/// Metadata of a file, without its content.
pub(crate) fn stat(path: &Path) -> io::Result<DocumentMeta> {
    std::fs::metadata(path).map(|found| facts(path, &found))
}

/// Name of a file in the index: its path. Bytes that are no text are written out, or two files would have one name.
pub(crate) fn origin(path: &Path) -> Cow<'_, str> {
    if let Some(text) = path.to_str() {
        return Cow::Borrowed(text);
    }
    let mut name = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        name.push_str(chunk.valid());
        name.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    Cow::Owned(name)
}

fn facts(path: &Path, found: &Metadata) -> DocumentMeta {
    let since = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    DocumentMeta {
        origin: origin(path).into_owned(),
        size: Some(i64::try_from(found.len()).unwrap_or(i64::MAX)),
        modified: Some(since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))),
        seen: now(),
        ..DocumentMeta::default()
    }
}

/// Entry found in a directory.
#[derive(Debug)]
pub(crate) enum CrawlEvent {
    /// A file to read.
    Document(PathBuf),
    /// A file whose name is none of a document, or a thing that is no file: a socket, a device.
    PassedOver,
    /// Path that cannot be read.
    Problem(SourceProblem),
}

/// The files of a directory in the order of their names, or the file itself. Links are followed, but never in circles.
pub(crate) fn find(path: &Path) -> impl Iterator<Item = CrawlEvent> {
    WalkDir::new(path).follow_links(true).max_depth(DEPTH).sort_by_file_name().into_iter().filter_map(
        |entry| match entry {
            // A file that is itself the source is read whatever its extension.
            Ok(entry) if entry.file_type().is_file() => {
                let is_document = entry.depth() == 0 || is_document(entry.path());
                Some(if is_document {
                    CrawlEvent::Document(entry.into_path())
                } else {
                    CrawlEvent::PassedOver
                })
            }
            Ok(entry) => (!entry.file_type().is_dir()).then_some(CrawlEvent::PassedOver),
            // Not a problem: the target of the link is being read anyway.
            Err(error) if error.loop_ancestor().is_some() => None,
            Err(error) => {
                let found = error.path().unwrap_or(path);
                let message = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                let problem = match error.depth() {
                    0 => SourceProblem::unreadable_source(found, &message),
                    _ => SourceProblem::unreadable(found, &message),
                };
                Some(CrawlEvent::Problem(problem))
            }
        },
    )
}

/// True if a file's name is that of a document: by its extension, packed or not, or by the whole name, which is the last
/// part of a manifest's URL where a server's documents were mirrored.
pub(crate) fn is_document(path: &Path) -> bool {
    let Some(name) = path.file_name() else { return false };
    let name = name.to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.') {
        Some((_, ending)) => matches!(ending, "json" | "jsonld"),
        None => matches!(name, "manifest" | "collection"),
    }
}

/// Reads one file, packed or not, handing out its canvases. On a problem, canvases handed out before do not count.
pub(crate) fn read(
    path: &Path,
    bases: &ImageBases,
    each: &mut dyn FnMut(Canvas),
) -> Result<(Document, DocumentMeta), SourceProblem> {
    let unreadable = |error: io::Error| SourceProblem::unreadable(path, &error.to_string());
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let broken = |error: WalkError| SourceProblem::broken(&path.display().to_string(), &error);
    let mut tee =
        BufReader::with_capacity(BUFFER, HashingReader { inner: file, hasher: blake3::Hasher::new() });
    let mut plain = unpacked(&mut tee).map_err(unreadable)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(WHOLE)).unwrap_or(0) + 1);
    plain.by_ref().take(WHOLE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let document = if u64::try_from(bytes.len()).unwrap_or(u64::MAX) <= WHOLE {
        // The canvas service's JSON may be broken; repaired, it has the same pairs.
        let (document, canvases) = manifest::read_under(&bytes, bases).map_err(broken)?;
        canvases.into_iter().for_each(each);
        document
    } else {
        manifest::walk_under(Cursor::new(bytes).chain(plain.by_ref()), bases, each).map_err(broken)?
    };
    drop(plain);
    io::copy(&mut tee, &mut io::sink()).map_err(unreadable)?;
    let hash = Some(tee.into_inner().hasher.finalize().into());
    Ok((document, DocumentMeta { hash, ..facts(path, &metadata) }))
}

/// BLAKE3 of a file, in the form of [`read`].
pub(crate) fn hash(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().into())
}

/// Reader that hashes the bytes it passes.
struct HashingReader<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
