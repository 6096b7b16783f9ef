//! Manifests in local files, which the gateway may serve: found by their ids, never by a path from a request.

use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::index::{Index, IndexError};

/// Condition for stored manifests: whole ones with an id of their own, in files that were there at the last read.
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

/// A manifest that the gateway lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// Id of the manifest.
    pub uri: String,
    /// Label of the manifest.
    pub label: Option<String>,
    /// Path of its file within the source, by which it is found; `None`: another file is found by that.
    pub name: Option<String>,
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

    /// Id of the manifest in the file with this name within its source: its path below the source's folder. Where several
    /// sources have a file of that name, the first counts.
    pub fn stored_named(&self, name: &str) -> Result<Option<String>, IndexError> {
        self.check_for_changes();
        self.read(|conn| named(conn, name))
    }

    /// Stored manifests in the order of their ids, `count` of them after the first `skip`.
    pub fn stored_list(&self, skip: usize, count: usize) -> Result<Vec<StoredManifest>, IndexError> {
        self.check_for_changes();
        // With max(), the other columns are those of its row.
        let sql = format!(
            "SELECT m.uri, m.label, m.origin, s.location, max(m.id) FROM manifests m JOIN sources s ON s.id = m.source
             WHERE {THERE} GROUP BY m.uri ORDER BY m.uri LIMIT ?1 OFFSET ?2"
        );
        let bound = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.read(|conn| {
            let mut select = conn.prepare_cached(&sql)?;
            let row = |row: &Row<'_>| {
                let (uri, label): (String, Option<String>) = (row.get(0)?, row.get(1)?);
                let (origin, source): (String, String) = (row.get(2)?, row.get(3)?);
                let name = name_within(&origin, &source).map(str::to_owned);
                let is_first = match &name {
                    Some(name) => named(conn, name)?.as_ref() == Some(&uri),
                    None => false,
                };
                Ok(StoredManifest { name: name.filter(|_| is_first), uri, label })
            };
            select.query_map([bound(count), bound(skip)], row)?.collect()
        })
    }

    /// Number of stored manifests.
    pub fn stored_count(&self) -> Result<usize, IndexError> {
        self.check_for_changes();
        let sql = format!(
            "SELECT count(DISTINCT m.uri) FROM manifests m JOIN sources s ON s.id = m.source WHERE {THERE}"
        );
        let count: i64 = self.read(|conn| conn.prepare_cached(&sql)?.query_row([], |row| row.get(0)))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

/// Name of a file within its source: its path below that folder, or its own name where the source is that file.
fn name_within<'a>(origin: &'a str, source: &str) -> Option<&'a str> {
    match origin.strip_prefix(source)? {
        "" => origin.rsplit('/').next(),
        rest => rest.strip_prefix('/').or_else(|| source.ends_with('/').then_some(rest)),
    }
}

fn named(conn: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let sql = format!(
        "SELECT m.uri, m.origin, s.location FROM sources s JOIN manifests m ON m.source = s.id
         AND m.origin IN (rtrim(s.location, '/') || '/' || ?1, s.location) WHERE {THERE} ORDER BY s.id"
    );
    let mut select = conn.prepare_cached(&sql)?;
    let mut rows = select.query([name])?;
    while let Some(row) = rows.next()? {
        if name_within(row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?) == Some(name) {
            return row.get(0).map(Some);
        }
    }
    Ok(None)
}
