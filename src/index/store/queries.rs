//! Queries of a generation: owners, canvases, neighbours, learned files.

use std::cmp::Reverse;

use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use crate::index::store::error::IndexError;
use crate::index::store::keys::KeyRules;
use crate::index::store::{Store, keys, writer};
use crate::index::{Neighbour, Owner};

/// Rows read for one key, and so the owners of one image at most: a placeholder picture can be on a million canvases. The
/// canvases of the newest rows may all be gone, and a heal asks for the next ones then.
pub(crate) const MAX_ROWS: u8 = 64;

/// The rows of a hash, in the order of the table: to sort them by manifest SQLite would make a temporary table for each
/// look-up, which costs four times as much as an empty result. Newer manifests have larger canvases.
pub(crate) const OWNERS: &str = "SELECT c.url, m.uri, c.label, c.keys, m.id, i.canvas FROM images i
   JOIN canvases c ON c.id = i.canvas JOIN manifests m ON m.id = c.manifest
   WHERE i.hash = ?1 ORDER BY i.canvas DESC LIMIT ?2";

impl Store {
    /// Canvases that own a key, those of the newest manifest first: older ones may name canvases that are gone. `name` is
    /// the key's [`keys::digest`].
    pub(crate) fn owners(
        &self,
        key: &str,
        name: u128,
        names: &KeyRules,
    ) -> Result<Vec<OwnerRow>, IndexError> {
        self.read(|conn| {
            let mut all: Vec<(Reverse<i64>, i64, OwnerRow)> = Vec::new();
            let mut select = conn.prepare_cached(OWNERS)?;
            let mut rows = select.query(params![keys::hash_of(name), MAX_ROWS])?;
            while let Some(row) = rows.next()? {
                // Two keys may share a hash; the row tells.
                let Some(carried) = matches(key, row.get_ref(3)?.as_str()?, names) else { continue };
                all.push((Reverse(row.get(4)?), row.get(5)?, OwnerRow { owner: owner(row)?, carried }));
            }
            all.sort_by_key(|(manifest, canvas, _)| (*manifest, *canvas));
            let mut found: Vec<OwnerRow> = Vec::new();
            for (_, _, owned) in all {
                let is_new = !found.iter().any(|other| other.owner.canvas == owned.owner.canvas);
                if is_new {
                    found.push(owned);
                }
            }
            Ok(found)
        })
    }

    /// Canvas with this [name](keys::canvas_name), one owner for each manifest that has it.
    pub(crate) fn canvas(&self, url: &str) -> Result<Vec<Owner>, IndexError> {
        self.read(|conn| {
            let mut found = Vec::new();
            let mut select = conn.prepare_cached(
                "SELECT c.url, m.uri, c.label FROM canvas_urls u
                 JOIN canvases c ON c.id = u.canvas JOIN manifests m ON m.id = c.manifest
                 WHERE u.hash = ?1 ORDER BY u.canvas LIMIT ?2",
            )?;
            let mut rows = select.query(params![keys::hash(url), MAX_ROWS])?;
            while let Some(row) = rows.next()? {
                if keys::canvas_name(row.get_ref(0)?.as_str()?) == url {
                    found.push(owner(row)?);
                }
            }
            Ok(found)
        })
    }

    /// The canvases that follow this one in the first manifest that has it.
    pub(crate) fn neighbours(&self, url: &str, n: usize) -> Result<Vec<Neighbour>, IndexError> {
        self.read(|conn| {
            let mut select = conn.prepare_cached(
                "SELECT c.url, c.id, c.manifest FROM canvas_urls u JOIN canvases c ON c.id = u.canvas
                 WHERE u.hash = ?1 ORDER BY u.canvas LIMIT ?2",
            )?;
            let mut rows = select.query(params![keys::hash(url), MAX_ROWS])?;
            while let Some(row) = rows.next()? {
                if keys::canvas_name(row.get_ref(0)?.as_str()?) == url {
                    let (id, manifest): (i64, i64) = (row.get(1)?, row.get(2)?);
                    let limit = i64::try_from(n).unwrap_or(i64::MAX);
                    return canvases(conn, id.saturating_add(1), manifest, limit);
                }
            }
            Ok(Vec::new())
        })
    }

    /// All canvases of a manifest, in order. Of several with the same id the last one read counts.
    pub(crate) fn manifest_canvases(&self, uri: &str) -> Result<Vec<Neighbour>, IndexError> {
        self.read(|conn| {
            let mut select = conn
                .prepare_cached("SELECT id, first FROM manifests WHERE uri = ?1 ORDER BY id DESC LIMIT 1")?;
            let mut rows = select.query([uri])?;
            match rows.next()? {
                Some(row) => canvases(conn, row.get(1)?, row.get(0)?, i64::MAX),
                None => Ok(Vec::new()),
            }
        })
    }

    /// A file URL that was learned.
    pub(crate) fn learned_file(&self, uuid: Uuid) -> Result<Option<String>, IndexError> {
        self.read(|conn| {
            let mut select = conn.prepare_cached("SELECT url FROM files WHERE uuid = ?1")?;
            let mut rows = select.query([uuid.as_bytes()])?;
            rows.next()?.map(|row| row.get(0)).transpose()
        })
    }
}

/// An owner, and the file that the canvas's own identifier carries.
#[derive(Debug)]
pub(crate) struct OwnerRow {
    pub(crate) owner: Owner,
    pub(crate) carried: Option<keys::EmbeddedFile>,
}

fn owner(row: &Row<'_>) -> rusqlite::Result<Owner> {
    Ok(Owner { canvas: row.get(0)?, manifest: row.get(1)?, label: row.get(2)? })
}

/// Returns a match if one of a canvas's keys is the wanted one, by either of its names; with the file it carries.
#[expect(clippy::option_option, reason = "found or not, and with a file or without")]
fn matches(key: &str, listed: &str, names: &KeyRules) -> Option<Option<keys::EmbeddedFile>> {
    let listed = writer::read_keys(listed);
    if listed.iter().any(|listed| listed == key) {
        return Some(names.carried(key).into_iter().next());
    }
    let mut carried = listed.iter().flat_map(|listed| names.carried(listed));
    carried.find(|carried| carried.key == key).map(Some)
}

pub(crate) fn canvases(
    conn: &Connection,
    from: i64,
    manifest: i64,
    limit: i64,
) -> rusqlite::Result<Vec<Neighbour>> {
    let mut select = conn.prepare_cached(
        "SELECT c.url, c.keys FROM manifests m
         JOIN canvases c ON c.id BETWEEN max(m.first, ?1) AND m.first + m.canvases - 1
         WHERE m.id = ?2 ORDER BY c.id LIMIT ?3",
    )?;
    let mut rows = select.query(params![from, manifest, limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Neighbour { canvas: row.get(0)?, keys: writer::read_keys(row.get_ref(1)?.as_str()?) });
    }
    Ok(found)
}
