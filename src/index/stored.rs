//! Manifests in local files, which the gateway may serve: found by their ids, never by a path from a request.

use std::path::PathBuf;

use rusqlite::OptionalExtension as _;

use crate::index::{Index, IndexError};

/// What counts: whole manifests with an id of their own, in files that were there at the last look.
const THERE: &str =
    "s.kind = 'path' AND m.kind = 'manifest' AND m.vanished IS NULL AND m.uri GLOB 'http*://*'";

/// A manifest in a file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalManifest {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The source's own path: the file lies below it, or is it.
    pub source: PathBuf,
}

impl Index {
    /// The file of the manifest with this id.
    pub fn stored(&self, uri: &str) -> Result<Option<LocalManifest>, IndexError> {
        self.check_for_changes();
        let sql = format!(
            "SELECT m.origin, s.location FROM manifests m JOIN sources s ON s.id = m.source
             WHERE m.uri = ?1 AND {THERE} ORDER BY m.id DESC LIMIT 1"
        );
        self.read(|conn| {
            let mut select = conn.prepare_cached(&sql)?;
            let stored = |row: &rusqlite::Row<'_>| {
                let (file, source): (String, String) = (row.get(0)?, row.get(1)?);
                Ok(LocalManifest { file: file.into(), source: source.into() })
            };
            select.query_row([uri], stored).optional()
        })
    }

    /// Ids and labels of stored manifests in the order of their ids, `count` of them after the first `skip`.
    pub fn stored_list(
        &self,
        skip: usize,
        count: usize,
    ) -> Result<Vec<(String, Option<String>)>, IndexError> {
        self.check_for_changes();
        let sql = format!(
            "SELECT m.uri, m.label FROM manifests m JOIN sources s ON s.id = m.source
             WHERE {THERE} GROUP BY m.uri ORDER BY m.uri LIMIT ?1 OFFSET ?2"
        );
        let bound = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.read(|conn| {
            let mut select = conn.prepare_cached(&sql)?;
            select.query_map([bound(count), bound(skip)], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    /// How many there are.
    pub fn stored_count(&self) -> Result<usize, IndexError> {
        self.check_for_changes();
        let sql = format!(
            "SELECT count(DISTINCT m.uri) FROM manifests m JOIN sources s ON s.id = m.source WHERE {THERE}"
        );
        let count: i64 = self.read(|conn| conn.prepare_cached(&sql)?.query_row([], |row| row.get(0)))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }
}
