//! Forgets a source with all that is known from it.

use crate::config::settings::SourceSettings;
use crate::index::Index;
use crate::index::sources::{AT_ONCE, is_same, stored};
use crate::index::store::error::IndexError;
use crate::index::store::{rows, writer};

/// Result of removing a source.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RemoveResult {
    /// Directory, file or URL of the source.
    pub source: String,
    /// Documents forgotten.
    pub documents: u64,
    /// True if the index knew the source.
    pub is_known: bool,
    /// True if the configuration names the source, so that it will be read again.
    pub is_configured: bool,
}

/// Forgets a source at once, without the grace period, as an operator requested.
pub fn remove(
    index: &Index,
    source: &SourceSettings,
    configured: &[SourceSettings],
    progress: &mut dyn FnMut(u64),
) -> Result<RemoveResult, IndexError> {
    let (_, location) = stored(source);
    let is_configured = configured.iter().any(|other| is_same(other, source));
    let mut removed = RemoveResult { source: location, documents: 0, is_known: false, is_configured };
    let Some(row) = index.read(|conn| rows::source_at(conn, &removed.source))? else {
        return Ok(removed);
    };
    removed.is_known = true;
    loop {
        let gone = index.write(|conn| {
            let mut select = conn.prepare_cached("SELECT id FROM manifests WHERE source = ?1 LIMIT ?2")?;
            let some = select.query_map([row, AT_ONCE.into()], |row| row.get(0))?;
            let some: Vec<i64> = some.collect::<rusqlite::Result<_>>()?;
            some.iter().try_for_each(|id| writer::remove(conn, &index.names.load(), *id))?;
            if some.is_empty() {
                conn.execute("DELETE FROM sources WHERE id = ?1", [row])?;
            }
            Ok(some.len())
        })?;
        if gone == 0 {
            return Ok(removed);
        }
        removed.documents += gone as u64;
        progress(removed.documents);
    }
}
