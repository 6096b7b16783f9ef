//! Record of one broken image: its last outcome, its readers, and the pages that asked for it.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;

use crate::outcome::Outcome;

/// Maximum of distinct readers counted for one image; the true number may be higher.
pub(in crate::heal) const READERS: usize = 64;

/// Maximum of referrers of an image that no manifest names.
const REFERRERS: usize = 4;

/// Longest identifier that no manifest names, and longest referrer, in bytes. Any client can choose them.
pub(in crate::heal) const LONGEST_IDENTIFIER: usize = 1024;
const LONGEST_REFERRER: usize = 256;

/// Time without a request after which an image is forgotten.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// Lifetime of an entry where the image server itself failed: mostly it is well again, and so are all its images.
const FAULT_KEPT_FOR: Duration = Duration::from_hours(1);

/// `ImageFailure` is a request that did not get its image.
#[derive(Debug, Clone, Copy)]
pub(in crate::heal) struct ImageFailure<'a> {
    /// True if a manifest in the index names the image.
    pub(in crate::heal) is_known: bool,
    pub(in crate::heal) outcome: Outcome,
    pub(in crate::heal) status: StatusCode,
    /// Address of the client, as one reader.
    pub(in crate::heal) client: IpAddr,
    /// `Referer` of the request.
    pub(in crate::heal) referrer: Option<&'a str>,
    /// Unix milliseconds.
    pub(in crate::heal) at: i64,
}

/// `Referrer` is a page that requested an image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Referrer {
    /// URL of the page, without query and fragment, as the client sent it.
    pub url: String,
    /// Requests that named the page.
    pub requests: u64,
}

/// `BrokenEntry` is the record of one image.
#[derive(Debug, Clone)]
pub(in crate::heal) struct BrokenEntry {
    /// Mark of the image route of the last request.
    pub(in crate::heal) mark: u64,
    /// Lookup key.
    pub(in crate::heal) key: String,
    pub(in crate::heal) is_known: bool,
    /// Outcome and status of the last request.
    pub(in crate::heal) outcome: Outcome,
    pub(in crate::heal) status: StatusCode,
    /// Hashes of the first [`READERS`] clients. Addresses are not kept.
    pub(in crate::heal) readers: Vec<u64>,
    pub(in crate::heal) requests: u64,
    /// First and last request, unix milliseconds.
    pub(in crate::heal) first: i64,
    pub(in crate::heal) last: i64,
    /// Number of the last request among all that failed.
    pub(in crate::heal) number: i64,
    pub(in crate::heal) referrers: Vec<Referrer>,
}

impl BrokenEntry {
    pub(in crate::heal) fn new(mark: u64, key: &str, failure: &ImageFailure<'_>) -> Self {
        Self {
            mark,
            key: key.to_owned(),
            is_known: failure.is_known,
            outcome: failure.outcome,
            status: failure.status,
            readers: Vec::new(),
            requests: 0,
            first: failure.at,
            last: failure.at,
            number: 0,
            referrers: Vec::new(),
        }
    }

    /// True if the image server failed, rather than this image.
    pub(in crate::heal) fn is_fault(&self) -> bool {
        matches!(self.outcome, Outcome::Served | Outcome::Refused)
    }

    pub(in crate::heal) fn is_old(&self, now: i64) -> bool {
        let kept = if self.is_fault() { FAULT_KEPT_FOR } else { KEPT_FOR };
        now.saturating_sub(self.last) > i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)
    }

    /// Order in which entries are dropped when there are too many: those with fewest readers first, of these the oldest.
    pub(in crate::heal) fn rank(&self) -> (usize, i64) {
        (if self.is_fault() { 0 } else { self.readers.len() }, self.number)
    }

    pub(in crate::heal) fn add(&mut self, failure: &ImageFailure<'_>, reader: u64) {
        (self.is_known, self.outcome, self.status) = (failure.is_known, failure.outcome, failure.status);
        self.last = failure.at;
        self.requests = self.requests.saturating_add(1);
        if self.readers.len() < READERS && !self.readers.contains(&reader) {
            self.readers.push(reader);
        }
        if failure.is_known {
            self.referrers.clear();
        } else if let Some(url) = failure.referrer.and_then(page_of) {
            self.refer(&url);
        }
    }

    /// Counts a page. A new one replaces the least named one.
    fn refer(&mut self, url: &str) {
        if let Some(known) = self.referrers.iter_mut().find(|known| known.url == url) {
            known.requests = known.requests.saturating_add(1);
            return;
        }
        if self.referrers.len() >= REFERRERS {
            let least = self.referrers.iter().enumerate().min_by_key(|(_, known)| known.requests);
            let least = least.map(|(at, _)| at).unwrap_or_default();
            self.referrers.remove(least);
        }
        self.referrers.push(Referrer { url: url.to_owned(), requests: 1 });
    }
}

/// URL of a page without query and fragment, which may hold secrets, cut to a bounded length. `None`: no page of the web.
fn page_of(referrer: &str) -> Option<String> {
    let page = referrer.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = page.split_once("://")?;
    // SECURITY: a `javascript:` URL is no page, and a URL with a password would show it.
    let is_page = matches!(scheme, "http" | "https")
        && !rest.split('/').next().unwrap_or_default().contains('@')
        && page.bytes().all(|byte| byte.is_ascii_graphic());
    is_page.then(|| page[..page.len().min(LONGEST_REFERRER)].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_referrer_a_bounded_page_of_the_web_is_kept_without_secrets() {
        assert_eq!(page_of("https://a.example/book?token=1#x").as_deref(), Some("https://a.example/book"));
        for no_page in [
            "javascript://a/%0aalert(1)",
            "data:text/html,x",
            "",
            "https://me:pass@a.example/",
            "https://a.example/\u{e9}",
        ] {
            assert_eq!(page_of(no_page), None, "{no_page}");
        }
        let long = format!("https://a.example/{}", "x".repeat(10_000));
        assert_eq!(page_of(&long).map(|page| page.len()), Some(LONGEST_REFERRER));
        let failure = ImageFailure {
            is_known: false,
            outcome: Outcome::Unknown,
            status: StatusCode::NOT_FOUND,
            client: IpAddr::V4(1.into()),
            referrer: None,
            at: 1_000,
        };
        let mut entry = BrokenEntry::new(7, "a", &failure);
        let real = "https://real.example/".to_owned();
        for page in [real.clone(), real].into_iter().chain((0..50).map(|it| format!("https://{it}.example/")))
        {
            entry.add(&ImageFailure { referrer: Some(&page), ..failure }, 1);
        }
        let referrers = entry.referrers;
        assert!(referrers.len() == REFERRERS && referrers[0].url == "https://real.example/", "{referrers:?}");
    }
}
