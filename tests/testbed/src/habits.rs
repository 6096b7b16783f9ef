//! What some image servers do and others do not: logins, a source cache, base64 identifiers, the second face of expiry.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::image_server::{Found, ImageServer};
use crate::wire::Seen;

#[derive(Debug, Default)]
pub(crate) struct Habits {
    login: AtomicBool,
    ignores_base64: AtomicBool,
    vanishing: AtomicUsize,
    sources: Mutex<Option<HashMap<String, Found>>>,
}

impl Habits {
    pub(crate) fn ignores_base64(&self) -> bool {
        self.ignores_base64.load(Ordering::SeqCst)
    }

    pub(crate) fn opened(&self, id: &str) -> Option<Found> {
        self.sources.lock().unwrap().as_ref()?.get(id).copied()
    }

    pub(crate) fn keep(&self, id: &str, found: Found) {
        if let Some(sources) = self.sources.lock().unwrap().as_mut() {
            sources.insert(id.to_owned(), found);
        }
    }

    /// Whether this look is one of those that lose their key between two steps of opening.
    pub(crate) fn loses_key_while_opening(&self) -> bool {
        let fewer = |left: usize| left.checked_sub(1);
        self.vanishing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok()
    }

    /// Whether this is a viewer without a cookie. The canvas service is let in: it has its own way.
    pub(crate) fn refuses_stranger(&self, seen: &Seen) -> bool {
        let is_service = seen.header("user-agent").starts_with("Apache-HttpClient/");
        self.login.load(Ordering::SeqCst) && !is_service && !seen.headers.contains_key("cookie")
    }

    pub(crate) fn is_well(&self) {
        self.vanishing.store(0, Ordering::SeqCst);
    }
}

impl ImageServer {
    /// Pictures and info.json without a Cookie are 401 before the identifier is looked up (Cantaloupe's `pre_authorize`):
    /// live and expired look the same to a stranger.
    pub fn asks_for_login(&self, asks: bool) {
        self.habits().login.store(asks, Ordering::SeqCst);
    }

    /// base64 identifiers are 404, as an image server without the library's delegate answers.
    pub fn ignores_base64(&self) {
        self.habits().ignores_base64.store(true, Ordering::SeqCst);
    }

    /// The next `count` pictures whose key is gone are 501 instead of 404: it went while they were being opened
    /// (upstream.md "An expired image").
    pub fn loses_keys_while_opening(&self, count: usize) {
        self.habits().vanishing.store(count, Ordering::SeqCst);
    }

    pub(crate) fn keeps_sources(&self, keeps: bool) {
        *self.habits().sources.lock().unwrap() = keeps.then(HashMap::new);
    }
}
