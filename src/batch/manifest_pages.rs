//! Whole manifests healed by one request, where that costs less than single canvases.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::OnceCell;

use crate::heal::{Healer, IndexedImage, PagesSeen};

/// Manifests that are remembered: canvases of one manifest come together.
const MANIFESTS: usize = 64;

/// `ManifestsInWork` counts broken pages of the manifests in work.
#[derive(Debug, Default)]
pub(crate) struct ManifestsInWork {
    /// The last one first.
    last: RefCell<VecDeque<Rc<ManifestPages>>>,
}

#[derive(Debug)]
struct ManifestPages {
    manifest: String,
    seen: Cell<PagesSeen>,
    /// Result of the one request for the manifest: true if it helped.
    asked: OnceCell<bool>,
}

impl ManifestsInWork {
    /// Counts a probed page of this manifest.
    pub(crate) fn page_seen(&self, manifest: &str, is_gone: bool) {
        let book = self.find(manifest).unwrap_or_else(|| {
            let (seen, asked) = (Cell::default(), OnceCell::new());
            let book = Rc::new(ManifestPages { manifest: manifest.to_owned(), seen, asked });
            let mut last = self.last.borrow_mut();
            last.truncate(MANIFESTS - 1);
            last.push_front(Rc::clone(&book));
            book
        });
        let PagesSeen { pages, gone } = book.seen.get();
        book.seen.set(PagesSeen { pages: pages + 1, gone: gone + usize::from(is_gone) });
    }

    /// Has the whole manifest built, once, where several of its pages are gone. True: built, now or before.
    pub(crate) async fn heal(&self, healer: &Healer, manifest: &str, image: &IndexedImage) -> bool {
        let Some(book) = self.find(manifest) else { return false };
        let is_cheaper = || book.seen.get().are_cheaper_as_book() && healer.may_heal_book(manifest);
        if !book.asked.initialized() && !is_cheaper() {
            return false;
        }
        *book.asked.get_or_init(|| healer.heal_book(manifest, image)).await
    }

    fn find(&self, manifest: &str) -> Option<Rc<ManifestPages>> {
        self.last.borrow().iter().find(|book| book.manifest == manifest).cloned()
    }
}
