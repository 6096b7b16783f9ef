//! Next generation of the file: filled beside the one in use, and swapped in.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::index::store::error::IndexError;
use crate::index::store::keys::KeyRules;
use crate::index::store::writer::{self, Writer};
use crate::index::store::{rows, schema};
use crate::index::{Index, history};

/// Fills a new generation and swaps it in. `populate` returns the newest document of the old generation that it has seen, or
/// gives up: then nothing changes, and the result is false.
pub(crate) fn make(
    index: &Index,
    populate: impl FnOnce(&Connection, &Path) -> Result<Option<i64>, IndexError>,
) -> Result<bool, IndexError> {
    let lock = index.path.lock()?;
    // Another process may have built since; from here on none can.
    index.reopen_if_replaced()?;
    let file = index.path.next(&lock)?;
    let made = publish(index, &file, populate);
    if matches!(made, Ok(true)) {
        index.reopen()?;
    }
    let _ = index.path.sweep(&lock);
    made
}

fn publish(
    index: &Index,
    file: &Path,
    populate: impl FnOnce(&Connection, &Path) -> Result<Option<i64>, IndexError>,
) -> Result<bool, IndexError> {
    let conn = schema::open_bulk(file)?;
    let named = |error| match error {
        IndexError::Store(error) => IndexError::of(file, error),
        other => other,
    };
    conn.execute_batch("BEGIN")?;
    let Some(newest) = populate(&conn, file).map_err(named)? else { return Ok(false) };
    // From here on no process writes to the old file any more, until the new one stands in its place.
    let mut conn = Some(conn);
    let swapped = index.alone(|old| {
        let Some(conn) = conn.take() else {
            return Err(IndexError::Building { path: file.to_path_buf() });
        };
        copy_newer(old, &conn, &index.names.load(), newest)?;
        conn.execute_batch("COMMIT; PRAGMA journal_mode = WAL;")?;
        conn.close().map_err(|(_, error)| error)?;
        index.path.publish(file)
    });
    swapped.map_err(named)?;
    Ok(true)
}

/// Copies documents learned from traffic, and nothing else.
pub(crate) fn carry_traffic(
    old: &Connection,
    conn: &Connection,
    writer: &mut Writer<'_>,
) -> Result<(), IndexError> {
    let mut select = old.prepare(
        "SELECT m.id, s.location, m.origin, m.vanished FROM manifests m JOIN sources s ON s.id = m.source
         WHERE s.kind = 'traffic' ORDER BY m.id",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (location, origin): (String, String) = (row.get(1)?, row.get(2)?);
        let source = writer::source_row(conn, "traffic", &location, false)?;
        if !rows::is_document_at(conn, source, &origin)? {
            writer::copy(old, writer, row.get(0)?, source, row.get(3)?)?;
        }
    }
    Ok(())
}

/// Copies writes of other threads and processes to the old generation during the build. The caller holds the old one's
/// write lock.
fn copy_newer(old: &Connection, conn: &Connection, names: &KeyRules, newest: i64) -> Result<(), IndexError> {
    let mut writer = Writer::direct(conn, names)?;
    let mut select = old.prepare(
        "SELECT m.id, s.kind, s.location, s.added, m.vanished FROM manifests m JOIN sources s ON s.id = m.source
         WHERE m.id > ?1 ORDER BY m.id",
    )?;
    let mut rows = select.query([newest])?;
    while let Some(row) = rows.next()? {
        let (kind, location): (String, String) = (row.get(1)?, row.get(2)?);
        let source = writer::source_row(conn, &kind, &location, row.get(3)?)?;
        writer::copy(old, &mut writer, row.get(0)?, source, row.get(4)?)?;
    }
    let mut sources = old.prepare("SELECT kind, location FROM sources WHERE added = 1")?;
    let mut rows = sources.query([])?;
    while let Some(row) = rows.next()? {
        writer::source_row(
            conn,
            row.get_ref(0)?.as_str().unwrap_or_default(),
            &row.get::<_, String>(1)?,
            true,
        )?;
    }
    history::carry_over(old, conn)?;
    let mut marks = old.prepare("SELECT name, value FROM marks")?;
    let mut rows = marks.query([])?;
    while let Some(row) = rows.next()? {
        let (name, value): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        conn.execute("INSERT OR IGNORE INTO marks (name, value) VALUES (?1, ?2)", params![name, value])?;
    }
    let mut files = old.prepare("SELECT uuid, url FROM files ORDER BY uuid")?;
    let mut insert = conn.prepare("INSERT OR REPLACE INTO files (uuid, url) VALUES (?1, ?2)")?;
    let mut rows = files.query([])?;
    while let Some(row) = rows.next()? {
        insert.execute(params![row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?])?;
    }
    Ok(())
}
