//! Forgets a source with all that is known from it.

use crate::config::settings::Source;
use crate::index::Index;
use crate::index::sources::{AT_ONCE, is_same, stored};
use crate::index::store::error::IndexError;
use crate::index::store::{rows, writer};

/// What became of a source that was to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// Its directory, file or URL.
    pub source: String,
    /// Documents forgotten.
    pub documents: u64,
    /// Whether the index knew it.
    pub is_known: bool,
    /// It stands in the configuration, so it will be read again.
    pub is_configured: bool,
}

/// Forgets a source at once, without grace: somebody asked for it.
pub fn remove(
    index: &Index,
    source: &Source,
    configured: &[Source],
    progress: &mut dyn FnMut(u64),
) -> Result<Removed, IndexError> {
    let (_, location) = stored(source);
    let is_configured = configured.iter().any(|other| is_same(other, source));
    let mut removed = Removed { source: location, documents: 0, is_known: false, is_configured };
    let Some(row) = index.read(|conn| rows::source_at(conn, &removed.source))? else {
        return Ok(removed);
    };
    removed.is_known = true;
    let all: Vec<i64> = index.read(|conn| rows::ids_of_source(conn, row))?.into_iter().collect();
    for some in all.chunks(AT_ONCE) {
        let gone = index.write(|conn| {
            // Another process may have read the source meanwhile: its documents have other rows then.
            let mut gone = 0;
            for id in some {
                if rows::is_document_of(conn, *id, row)? {
                    writer::remove(conn, &index.names.load(), *id)?;
                    gone += 1;
                }
            }
            Ok(gone)
        })?;
        removed.documents += gone;
        progress(removed.documents);
    }
    index.write(|conn| {
        for id in rows::ids_of_source(conn, row)? {
            writer::remove(conn, &index.names.load(), id)?;
        }
        conn.execute("DELETE FROM sources WHERE id = ?1", [row])?;
        Ok(())
    })?;
    Ok(removed)
}
