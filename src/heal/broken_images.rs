//! Images that readers did not get, each until it is seen well: bounded, and written by requests that fail only.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::heal::broken_entry::{BrokenEntry, ImageFailure, LONGEST_IDENTIFIER};
use crate::outcome::Outcome;

/// `BrokenImages` remembers images that readers did not get, those of manifests and all others apart.
///
/// SECURITY: any client can ask for names that are made up. Such names have a limit of their own, and those that only one
/// client asked for are dropped first, so they push out neither the images of books nor those that several readers miss.
#[derive(Debug, Default)]
pub(in crate::heal) struct BrokenImages {
    /// Number of entries. A request that went well reads this alone while nothing is broken.
    count: AtomicUsize,
    table: RwLock<BrokenTable>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct BrokenTable {
    /// Entries by the hash of the key.
    entries: HashMap<u64, BrokenEntry>,
    /// Ranks of unknown and of known images.
    ranks: [BTreeSet<((usize, i64), u64)>; 2],
    /// Requests that failed so far.
    number: i64,
}

impl BrokenTable {
    fn put(&mut self, id: u64, entry: BrokenEntry) {
        self.ranks[usize::from(entry.is_known)].insert((entry.rank(), id));
        self.entries.insert(id, entry);
    }

    fn take(&mut self, id: u64) -> Option<BrokenEntry> {
        let entry = self.entries.remove(&id)?;
        self.ranks[usize::from(entry.is_known)].remove(&(entry.rank(), id));
        Some(entry)
    }

    /// Removes entries of this kind until there are fewer than `most`. True: there was one.
    fn make_room(&mut self, is_known: bool, most: usize) -> bool {
        let mut was_full = false;
        while self.ranks[usize::from(is_known)].len() >= most.max(1) {
            let Some((_, id)) = self.ranks[usize::from(is_known)].pop_first() else { break };
            self.entries.remove(&id);
            was_full = true;
        }
        was_full
    }
}

impl BrokenImages {
    /// True while no image is broken.
    pub(in crate::heal) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn id(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Records that a reader did not get this image; at most `most` images of each kind are kept. False: this image, or
    /// another one for it, was dropped.
    pub(in crate::heal) fn record(
        &self,
        (mark, key): (u64, &str),
        failure: &ImageFailure<'_>,
        most: usize,
    ) -> bool {
        if most == 0 || !failure.is_known && key.len() > LONGEST_IDENTIFIER {
            return false;
        }
        let (id, reader) = (self.id(key), self.hasher.hash_one(failure.client));
        let mut table = self.table.write();
        table.number += 1;
        let before = table.take(id).filter(|before| before.key == key);
        let before = before.filter(|before| !before.is_old(failure.at));
        let mut entry = before.unwrap_or_else(|| BrokenEntry::new(mark, key, failure));
        entry.add(failure, reader);
        (entry.number, entry.mark) = (table.number, mark);
        let was_full = table.make_room(failure.is_known, most);
        table.put(id, entry);
        self.count.store(table.entries.len(), Ordering::Relaxed);
        !was_full
    }

    /// Forgets this image, which was served on some route.
    pub(in crate::heal) fn clear(&self, key: &str) {
        if self.is_empty() {
            return;
        }
        let id = self.id(key);
        if self.table.read().entries.contains_key(&id) {
            let mut table = self.table.write();
            table.take(id);
            self.count.store(table.entries.len(), Ordering::Relaxed);
        }
    }

    /// How the last request for this image ended, if a reader did not get it and nobody saw it well since.
    pub(in crate::heal) fn outcome(&self, key: &str) -> Option<Outcome> {
        if self.is_empty() {
            return None;
        }
        let table = self.table.read();
        table.entries.get(&self.id(key)).filter(|entry| entry.key == key).map(|entry| entry.outcome)
    }

    /// Forgets images without a request for long.
    pub(in crate::heal) fn prune(&self, now: i64) {
        let mut table = self.table.write();
        let old: Vec<u64> =
            table.entries.iter().filter(|(_, entry)| entry.is_old(now)).map(|(id, _)| *id).collect();
        for id in old {
            table.take(id);
        }
        self.count.store(table.entries.len(), Ordering::Relaxed);
    }

    /// Number of images of manifests, and of all others.
    pub(in crate::heal) fn counts(&self) -> (usize, usize) {
        let table = self.table.read();
        (table.ranks[1].len(), table.ranks[0].len())
    }

    /// Lists images by their last request, newest first, from the one before this number.
    pub(in crate::heal) fn list(
        &self,
        is_known: Option<bool>,
        before: Option<i64>,
        limit: usize,
    ) -> Vec<BrokenEntry> {
        let table = self.table.read();
        let mut found: Vec<&BrokenEntry> = table
            .entries
            .values()
            .filter(|entry| is_known.is_none_or(|is_known| entry.is_known == is_known))
            .filter(|entry| before.is_none_or(|before| entry.number < before))
            .collect();
        found.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.number));
        found.into_iter().take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::StatusCode;

    use super::*;
    use crate::heal::broken_entry::READERS;
    use crate::outcome::Outcome;

    fn failure(is_known: bool, client: u32) -> ImageFailure<'static> {
        ImageFailure {
            is_known,
            outcome: if is_known { Outcome::Missing } else { Outcome::Unknown },
            status: StatusCode::NOT_FOUND,
            client: IpAddr::V4(client.into()),
            referrer: None,
            at: 1_000,
        }
    }

    fn keys(broken: &BrokenImages, is_known: bool) -> Vec<String> {
        broken.list(Some(is_known), None, 100).into_iter().map(|entry| entry.key).collect()
    }

    #[test]
    fn an_image_is_remembered_with_its_readers_until_it_is_seen_well() {
        let broken = BrokenImages::default();
        assert!(broken.is_empty());
        for client in [1, 1, 2, 3] {
            assert!(broken.record((7, "a"), &failure(true, client), 10));
        }
        let entry = broken.list(None, None, 10).remove(0);
        assert_eq!((entry.readers.len(), entry.requests, entry.first), (3, 4, 1_000));
        broken.clear("b");
        assert_eq!(broken.counts(), (1, 0), "another image");
        broken.clear("a");
        assert!(broken.is_empty() && broken.list(None, None, 10).is_empty());
        for client in 0..1_000 {
            broken.record((7, "a"), &failure(true, client), 10);
        }
        assert_eq!(broken.list(None, None, 10).remove(0).readers.len(), READERS);
    }

    #[test]
    fn names_that_are_made_up_push_out_no_book_and_nothing_that_several_readers_miss() {
        let broken = BrokenImages::default();
        broken.record((7, "page"), &failure(true, 1), 10);
        for client in 1..4 {
            broken.record((7, "missed"), &failure(false, client), 10);
        }
        for number in 0..10_000 {
            // One client; each name several times.
            broken.record((7, &format!("made-up-{}", number / 3)), &failure(false, 9), 10);
        }
        assert_eq!(broken.counts(), (1, 10));
        assert_eq!(keys(&broken, true), ["page"]);
        assert!(keys(&broken, false).contains(&"missed".to_owned()));
        assert!(!broken.record((7, "one more"), &failure(false, 9), 10), "that one had to go is told");
        assert!(!broken.record((7, &"x".repeat(LONGEST_IDENTIFIER + 1)), &failure(false, 9), 10));
        assert_eq!(broken.table.read().entries.len(), 11);
    }

    #[test]
    fn an_image_that_comes_into_a_manifest_changes_its_kind() {
        let broken = BrokenImages::default();
        let page = ImageFailure { referrer: Some("https://a.example/"), ..failure(false, 1) };
        broken.record((7, "a"), &page, 10);
        assert_eq!(broken.counts(), (0, 1));
        broken.record((7, "a"), &failure(true, 1), 10);
        assert_eq!(broken.counts(), (1, 0));
        let entry = broken.list(None, None, 10).remove(0);
        assert_eq!((entry.requests, entry.referrers.len()), (2, 0));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten_and_a_fault_of_the_server_sooner() {
        let broken = BrokenImages::default();
        let fault =
            ImageFailure { outcome: Outcome::Served, status: StatusCode::BAD_GATEWAY, ..failure(true, 1) };
        broken.record((7, "gone"), &failure(true, 1), 2);
        broken.record((7, "fault"), &fault, 2);
        broken.record((7, "more"), &failure(true, 1), 2);
        assert_eq!(keys(&broken, true), ["more", "gone"], "the fault goes first");
        broken.record((7, "fault"), &fault, 10);
        let hour = 3_600_000;
        broken.prune(1_000 + 2 * hour);
        assert_eq!(keys(&broken, true), ["more", "gone"]);
        broken.prune(1_000 + 25 * hour);
        assert!(broken.is_empty());
    }

    #[test]
    fn entries_come_page_by_page() {
        let broken = BrokenImages::default();
        for key in ["a", "b", "c"] {
            broken.record((7, key), &failure(true, 1), 10);
        }
        let first = broken.list(Some(true), None, 2);
        let rest = broken.list(Some(true), Some(first[1].number), 2);
        let keys: Vec<_> = first.iter().chain(&rest).map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["c", "b", "a"]);
    }
}
