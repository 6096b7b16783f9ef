//! File URLs: where the files of images are, as far as known.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::cluster::LearnedEntry;
use crate::heal::canvas_service::shared_heals::SharedHeals;
use crate::heal::timed_cache::TimedCache;
use crate::iiif::identifier::uuid_of_file_url;
use crate::index::Index;
use crate::index::history::writer::HistoryWriter;

/// Time for which a file URL is believed to be in the index: writing it may have failed.
const FILED_FOR: Duration = Duration::from_mins(10);

/// UUIDs whose file URL is remembered to be in the index; others are looked up.
const FILED: u64 = 20_000;

/// `FileUrls` holds the URLs of images' files: from the index, and from canvas services.
#[derive(Debug)]
pub(in crate::heal) struct FileUrls {
    index: Arc<Index>,
    history: HistoryWriter,
    fleet: Arc<SharedHeals>,
    /// UUIDs whose file URL is in the index, or will be in a moment.
    filed: TimedCache<Uuid>,
}

impl FileUrls {
    pub(in crate::heal) fn new(index: Arc<Index>, history: HistoryWriter, fleet: Arc<SharedHeals>) -> Self {
        Self { index, history, fleet, filed: TimedCache::new(FILED) }
    }

    /// True if no background write is pending (the simulation's recorder only takes notes).
    #[cfg(test)]
    pub(in crate::heal) fn is_idle(&self) -> bool {
        self.history.is_idle()
    }

    pub(in crate::heal) fn of(&self, uuid: Uuid) -> Option<Arc<str>> {
        #[cfg(test)]
        if let Some(noted) = self.history.noted_file_url(uuid) {
            return Some(noted.into());
        }
        self.index.file_url(uuid).ok().flatten()
    }

    /// Remembers the URL of the file, if the claim is true. Written in the background; no request waits for that.
    pub(in crate::heal) fn learn(&self, uuid: Uuid, file_url: &str) {
        if self.filed.contains(&uuid) || uuid_of_file_url(file_url) != uuid {
            return;
        }
        self.filed.insert(uuid, (), FILED_FOR);
        if self.of(uuid).is_none() {
            if let Some(cluster) = self.fleet.connected() {
                cluster.publish_learned(&LearnedEntry::File {
                    uuid: uuid.to_string(),
                    url: file_url.to_owned(),
                });
            }
            self.history.learn_file_url(uuid, file_url);
        }
    }
}
