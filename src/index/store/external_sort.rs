//! Sorts more pairs than memory should hold: runs of a fixed size on disk, merged at the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// A hash and the canvas it leads to.
pub(crate) type Pair = (i64, i64);

/// Pairs held in memory before they are written out: 16 MiB.
const RUN: usize = 1 << 20;

/// Takes pairs in any order and gives them back in order.
#[derive(Debug)]
pub(crate) struct ExternalSorter {
    base: PathBuf,
    label: &'static str,
    held: Vec<Pair>,
    runs: Vec<SortedRun>,
    run: usize,
}

/// A sorted file, removed on drop.
#[derive(Debug)]
struct SortedRun {
    path: PathBuf,
}

impl Drop for SortedRun {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl ExternalSorter {
    /// Runs are written beside `base`, as `{base}.run-{label}-{number}`.
    pub(crate) fn new(base: &Path, label: &'static str) -> Self {
        Self { base: base.to_path_buf(), label, held: Vec::new(), runs: Vec::new(), run: RUN }
    }

    pub(crate) fn push(&mut self, pair: Pair) -> io::Result<()> {
        self.held.push(pair);
        if self.held.len() >= self.run { self.spill() } else { Ok(()) }
    }

    /// Hands out all pairs in order, equal ones once.
    pub(crate) fn drain<E: From<io::Error>>(
        mut self,
        mut each: impl FnMut(Pair) -> Result<(), E>,
    ) -> Result<(), E> {
        self.held.sort_unstable();
        let mut readers = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            readers.push(BufReader::with_capacity(64 << 10, File::open(&run.path)?));
        }
        let mut heads = BinaryHeap::with_capacity(readers.len() + 1);
        for (at, reader) in readers.iter_mut().enumerate() {
            if let Some(pair) = read(reader)? {
                heads.push(Reverse((pair, at)));
            }
        }
        let mut held = self.held.drain(..);
        let in_memory = readers.len();
        if let Some(pair) = held.next() {
            heads.push(Reverse((pair, in_memory)));
        }
        let mut last = None;
        while let Some(Reverse((pair, at))) = heads.pop() {
            if last != Some(pair) {
                each(pair)?;
                last = Some(pair);
            }
            let next = match readers.get_mut(at) {
                Some(reader) => read(reader)?,
                None => held.next(),
            };
            if let Some(pair) = next {
                heads.push(Reverse((pair, at)));
            }
        }
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        self.held.sort_unstable();
        let mut path = self.base.clone().into_os_string();
        path.push(format!(".run-{}-{}", self.label, self.runs.len()));
        let run = SortedRun { path: path.into() };
        let mut file = BufWriter::with_capacity(256 << 10, File::create(&run.path)?);
        self.runs.push(run);
        for (hash, canvas) in self.held.drain(..) {
            file.write_all(&hash.to_ne_bytes())?;
            file.write_all(&canvas.to_ne_bytes())?;
        }
        file.flush()
    }
}

fn read(from: &mut impl Read) -> io::Result<Option<Pair>> {
    let mut hash = [0; 8];
    match from.read_exact(&mut hash) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut canvas = [0; 8];
    from.read_exact(&mut canvas)?;
    Ok(Some((i64::from_ne_bytes(hash), i64::from_ne_bytes(canvas))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_in_order_and_once_whether_or_not_they_fit_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        for run in [3, 7, 1000] {
            let mut sorter = ExternalSorter::new(&dir.path().join("x"), "test");
            sorter.run = run;
            for i in 0..100_i64 {
                sorter.push(((i * 37) % 50 - 25, i % 50)).unwrap();
            }
            let mut seen = Vec::new();
            sorter
                .drain(|pair| {
                    seen.push(pair);
                    io::Result::Ok(())
                })
                .unwrap();
            let mut expected: Vec<Pair> = (0..100_i64).map(|i| ((i * 37) % 50 - 25, i % 50)).collect();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(seen, expected);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "runs are removed");
        }
    }
}
