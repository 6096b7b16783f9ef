//! The documents that the canvas service keeps, as they were at one moment.

use std::collections::BTreeMap;

/// All stored documents. A place is written `canvas obj/minutes/pages/page_0`, a variant's with ` disallow=…` behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored(BTreeMap<String, Vec<String>>);

/// Number of pictures in a document; info.json is one.
fn pictures(json: &str) -> usize {
    json.matches("oa:Annotation").count() + usize::from(json.contains("iiif.io/api/image/2/level2.json"))
}

/// Number of pictures in the answer to a plain GET: the oldest duplicate.
fn answered(entries: &[String]) -> usize {
    entries.first().map_or(0, |json| pictures(json))
}

fn is_plain(place: &str) -> bool {
    !place.contains(" allow=") && !place.contains(" disallow=")
}

impl Stored {
    pub(crate) fn new(documents: BTreeMap<String, Vec<String>>) -> Self {
        Self(documents)
    }

    /// The duplicates at one place; none where nothing is stored.
    pub fn at(&self, place: &str) -> &[String] {
        self.0.get(place).map_or(&[], Vec::as_slice)
    }

    /// Number of documents, duplicates included.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// True if there are no documents.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Places that were there before and now answer with fewer pictures, or hold nothing any more.
    pub fn worse_than(&self, before: &Self) -> Vec<String> {
        let worse = |(place, entries): &(&String, &Vec<String>)| answered(self.at(place)) < answered(entries);
        before.0.iter().filter(worse).map(|(place, _)| place.clone()).collect()
    }

    /// Plain places that came since and show no picture: every reader gets them from now on.
    pub fn empty_since(&self, before: &Self) -> Vec<String> {
        let came = |(place, _): &(&String, &Vec<String>)| is_plain(place) && !before.0.contains_key(*place);
        let empty = |(_, entries): &(&String, &Vec<String>)| answered(entries) == 0;
        self.0.iter().filter(came).filter(empty).map(|(place, _)| place.clone()).collect()
    }

    /// Places that were there before and are not byte for byte the same now.
    pub fn changed_since(&self, before: &Self) -> Vec<String> {
        let changed = |(place, entries): &(&String, &Vec<String>)| self.at(place) != entries.as_slice();
        before.0.iter().filter(changed).map(|(place, _)| place.clone()).collect()
    }
}
