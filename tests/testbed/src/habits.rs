//! Habits that some image servers have and others do not: logins, a source cache, base64 identifiers, a key lost while
//! opening.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::gate::Gate;
use crate::image_server::{Found, ImageServer};
use crate::wire::Seen;

#[derive(Debug, Default)]
pub(crate) struct Habits {
    login: AtomicBool,
    ignores_base64: AtomicBool,
    vanishing: AtomicUsize,
    sources: Mutex<Option<HashMap<String, Found>>>,
    late: Mutex<HashSet<String>>,
    late_gate: Gate,
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

    /// True if this look-up is to lose its key between two steps of opening.
    pub(crate) fn loses_key_while_opening(&self) -> bool {
        let fewer = |left: usize| left.checked_sub(1);
        self.vanishing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok()
    }

    /// True for a viewer without a cookie, where a login is needed. The canvas service is let in: it has its own way.
    pub(crate) fn refuses_stranger(&self, seen: &Seen) -> bool {
        let is_service = seen.header("user-agent").starts_with("Apache-HttpClient/");
        self.login.load(Ordering::SeqCst) && !is_service && !seen.headers.contains_key("cookie")
    }

    /// Waits with an answer that is decided, where its target is one of those that are late.
    pub(crate) async fn delivers(&self, target: &str) {
        let late = self.late.lock().unwrap().iter().any(|part| target.contains(part.as_str()));
        if late {
            self.late_gate.pass().await;
        }
    }

    pub(crate) fn is_well(&self) {
        self.late.lock().unwrap().clear();
        self.late_gate.open();
        self.vanishing.store(0, Ordering::SeqCst);
    }
}

impl ImageServer {
    /// Pictures and info.json without a Cookie are 401 before the identifier is looked up (Cantaloupe's `pre_authorize`):
    /// live and expired look alike without a login.
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

    /// Answers whose target contains this text are decided at once and sent only after [`ImageServer::delivers_all`]: they
    /// are outdated by then.
    pub fn delivers_late(&self, part: &str) {
        self.habits().late.lock().unwrap().insert(part.to_owned());
        self.habits().late_gate.shut();
    }

    /// Sends the answers that [`ImageServer::delivers_late`] held.
    pub fn delivers_all(&self) {
        self.habits().late.lock().unwrap().clear();
        self.habits().late_gate.open();
    }

    pub(crate) fn keeps_sources(&self, keeps: bool) {
        *self.habits().sources.lock().unwrap() = keeps.then(HashMap::new);
    }
}
