//! The canvas service's Redis: resource keys and generated JSON, with duplicates (upstream.md "Redis", "Load").

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::stored::Stored;

/// Number of duplicates from which on one update is not enough.
const CROWD: usize = 5;
/// Number of older duplicates before an entry that was saved again among many.
const BEHIND: usize = 2;

/// Key of a generated answer. The service's key has no page: the canvases `?page=1` and `?page=2` of a PDF share one entry;
/// `allow` and `disallow` do belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) kind: &'static str,
    pub(crate) path: String,
    pub(crate) allow: String,
    pub(crate) disallow: String,
}

impl Key {
    fn is_plain(&self) -> bool {
        self.allow.is_empty() && self.disallow.is_empty()
    }

    fn is_plain_canvas(&self, path: &str) -> bool {
        self.kind == "canvas" && self.path == path && self.is_plain()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.path)?;
        if !self.allow.is_empty() {
            write!(f, " allow={}", self.allow)?;
        }
        if self.disallow.is_empty() { Ok(()) } else { write!(f, " disallow={}", self.disallow) }
    }
}

/// Error of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Down,
    Full,
}

/// A stored answer.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) json: String,
}

/// The handle; clones share the store.
#[derive(Debug, Clone, Default)]
pub struct Redis(Arc<Mutex<Store>>);

#[derive(Debug, Default)]
struct Store {
    keys: HashMap<String, String>,
    manifests: HashMap<Key, Vec<Entry>>,
    next: u64,
    down: bool,
    full: bool,
}

impl Redis {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap()
    }

    /// Keys and manifests gone: a restart without persistence.
    pub fn flush(&self) {
        let mut store = self.store();
        store.keys.clear();
        store.manifests.clear();
    }

    /// Removes the resource keys only; every canvas JSON survives, so that a plain visit heals nothing.
    pub fn evict_keys(&self) {
        self.store().keys.clear();
    }

    /// Removes the generated JSON only.
    pub fn evict_manifests(&self) {
        self.store().manifests.clear();
    }

    /// Removes one resource key (upstream.md "An expired image"); a PDF page's `;N` is dropped, one key serves all pages.
    pub fn expires(&self, identifier: &str) {
        let uuid = identifier.split(';').next().unwrap_or_default();
        self.store().keys.remove(uuid);
    }

    /// Removes the stored canvas JSON of a repository path (`obj/minutes/pages/page_0`).
    pub fn forgets_canvas(&self, path: &str) {
        self.store().manifests.retain(|key, _| key.kind != "canvas" || key.path != path);
    }

    /// Refuses every command (service answers 503).
    pub fn goes_down(&self) {
        self.store().down = true;
    }

    /// Answers again.
    pub fn comes_up(&self) {
        self.store().down = false;
    }

    /// `noeviction` and full: reads work, writes fail (service answers 500).
    pub fn fills_up(&self) {
        self.store().full = true;
    }

    /// Has room again.
    pub fn has_room(&self) {
        self.store().full = false;
    }

    /// True if the key of an identifier is there.
    pub fn has_key(&self, identifier: &str) -> bool {
        self.store().keys.contains_key(identifier.split(';').next().unwrap_or_default())
    }

    /// All stored documents, to compare with later.
    pub fn stored(&self) -> Stored {
        let store = self.store();
        let named = |(key, entries): (&Key, &Vec<Entry>)| {
            (key.to_string(), entries.iter().map(|entry| entry.json.clone()).collect())
        };
        Stored::new(store.manifests.iter().map(named).collect())
    }

    /// Number of entries of a canvas that are stored beside the plain one, under an `allow` or `disallow`.
    pub fn canvas_variants(&self, path: &str) -> usize {
        let store = self.store();
        let canvases = store.manifests.iter().filter(|(key, _)| key.kind == "canvas" && key.path == path);
        canvases.filter(|(key, _)| !key.is_plain()).map(|(_, entries)| entries.len()).sum()
    }

    /// Number of stored duplicates of a canvas, as requested without `allow` and `disallow`.
    pub fn canvas_duplicates(&self, path: &str) -> usize {
        let store = self.store();
        let canvases = store.manifests.iter().filter(|(key, _)| key.is_plain_canvas(path));
        canvases.map(|(_, entries)| entries.len()).sum()
    }

    /// Number of poisoned duplicates of a canvas (`images` empty).
    pub fn poisoned_duplicates(&self, path: &str) -> usize {
        let store = self.store();
        let canvases = store.manifests.iter().filter(|(key, _)| key.is_plain_canvas(path));
        canvases
            .flat_map(|(_, entries)| entries)
            .filter(|entry| entry.json.contains("\"images\" : [ ]"))
            .count()
    }

    pub(crate) fn resource(&self, uuid: &str) -> Result<Option<String>, Trouble> {
        let store = self.store();
        if store.down { Err(Trouble::Down) } else { Ok(store.keys.get(uuid).cloned()) }
    }

    pub(crate) fn lookup(&self, url: &str) -> Result<Option<String>, Trouble> {
        let store = self.store();
        let found = store.keys.iter().find(|(_, known)| *known == url).map(|(uuid, _)| uuid.clone());
        if store.down { Err(Trouble::Down) } else { Ok(found) }
    }

    pub(crate) fn register(&self, uuid: &str, url: &str) -> Result<(), Trouble> {
        let mut store = self.store();
        if store.keys.contains_key(uuid) && !store.down {
            return Ok(());
        }
        store.writable()?;
        store.keys.insert(uuid.to_owned(), url.to_owned());
        Ok(())
    }

    /// The oldest duplicate.
    pub(crate) fn manifest(&self, key: &Key) -> Result<Option<Entry>, Trouble> {
        let store = self.store();
        let first = store.manifests.get(key).and_then(|entries| entries.first()).cloned();
        if store.down { Err(Trouble::Down) } else { Ok(first) }
    }

    /// Adds an entry. No check for an earlier generation is made: so N at once leave N duplicates.
    pub(crate) fn add(&self, key: Key, json: String) -> Result<(), Trouble> {
        let mut store = self.store();
        store.writable()?;
        store.next += 1;
        let id = store.next;
        store.manifests.entry(key).or_default().push(Entry { id, json });
        Ok(())
    }

    /// Saves one entry again: only this duplicate changes.
    ///
    /// Measured: up to four duplicates, one update cures; from five on its own answer is good while the next plain GET
    /// is poisoned again, and up to three updates were needed. The stand-in's rule for that: in a crowd, the saved
    /// entry is indexed anew behind the two next older ones. `[p1 p2 p3 p4 p5]` → `[p2 p3 g1 p4 p5]` →
    /// `[p3 g1 g2 p4 p5]` → `[g1 g2 g3 p4 p5]`: well after the third, and it stays well.
    pub(crate) fn save(&self, key: &Key, id: u64, json: String) -> Result<(), Trouble> {
        let mut store = self.store();
        store.writable()?;
        let entries = store.manifests.entry(key.clone()).or_default();
        let crowd = entries.len() >= CROWD;
        let place = entries.iter().position(|entry| entry.id == id);
        if let Some(place) = place {
            entries.remove(place);
        }
        let place = match place {
            Some(0) if crowd => BEHIND,
            Some(place) => place,
            None => entries.len(),
        };
        entries.insert(place.min(entries.len()), Entry { id, json });
        Ok(())
    }
}

impl Store {
    fn writable(&self) -> Result<(), Trouble> {
        match (self.down, self.full) {
            (true, _) => Err(Trouble::Down),
            (_, true) => Err(Trouble::Full),
            _ => Ok(()),
        }
    }
}
