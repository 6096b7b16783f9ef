//! Variants: whether a canvas service builds a canvas *beside* the stored one when asked with a `disallow` that fits
//! nothing.
//!
//! UPSTREAM: the service's cache key is path, type, repository, `allow` and `disallow` together. The `@id` of such an
//! answer carries the query, as proof; a service that ignores the parameter answers with its plain canvas, so that the
//! first request, without `update`, is harmless anywhere (upstream.md "Ways back to life").

use std::time::Duration;

use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use crate::heal::learned::{ServerSupport, SupportAnswer};
use crate::iiif::canvas::NOTHING;

/// `VariantSupport` says whether one canvas service supports variants.
#[derive(Debug, Default)]
pub(in crate::heal) struct VariantSupport {
    learned: ServerSupport,
    /// Time at which the result was last shared with the other nodes.
    shared: Mutex<Option<Instant>>,
}

/// Time after which a service that ignored the parameter is tried anew.
pub(in crate::heal) const RETRY_AFTER: Duration = Duration::from_mins(10);

impl VariantSupport {
    /// True if the service builds beside. `None`: not known, or not known any more.
    pub(in crate::heal) fn known(&self, now: Instant) -> Option<bool> {
        match self.learned.known(now) {
            SupportAnswer::Does(()) => Some(true),
            SupportAnswer::DoesNot => Some(false),
            SupportAnswer::Nothing => None,
        }
    }

    /// Records the evidence of an answer. True: not known before.
    pub(in crate::heal) fn record(&self, honoured: bool, now: Instant) -> bool {
        let is_news = self.known(now) != Some(honoured);
        if honoured {
            self.learned.does(());
        } else {
            self.learned.does_not(now + RETRY_AFTER);
        }
        is_news
    }

    /// True if the result is due for the other nodes, once in a while because they forget it. A call that returns true
    /// counts as shared.
    pub(in crate::heal) fn is_to_be_shared(&self, now: Instant) -> bool {
        let mut shared = self.shared.lock();
        let is_due = shared.is_none_or(|at| now.saturating_duration_since(at) >= RETRY_AFTER / 2);
        if is_due {
            *shared = Some(now);
        }
        is_due
    }
}

/// The target with `update=true` before its last pair.
pub(in crate::heal) fn built_anew(variant: &str) -> String {
    match variant.rsplit_once("disallow=") {
        Some((before, value)) => format!("{before}update=true&disallow={value}"),
        None => variant.to_owned(),
    }
}

/// The target of the plain canvas; `None`: this is no variant of ours.
pub(in crate::heal) fn plain(variant: &str) -> Option<&str> {
    let plain = variant.strip_suffix(NOTHING)?.strip_suffix("disallow=")?;
    Some(plain.strip_suffix(['?', '&']).unwrap_or(plain))
}

/// True if this `@id` carries the query.
pub(in crate::heal) fn is_honoured(id: &str) -> bool {
    id.split_once('?').is_some_and(|(_, query)| query.contains("disallow="))
}

/// True if this is the `@id` of the requested document. `asked`: the path below the service's own.
pub(in crate::heal) fn is_of(id: &str, asked: &str) -> bool {
    let path = |text: &str| {
        let path = text.split(['?', '#']).next().unwrap_or_default();
        percent_decode_str(path.trim_end_matches('/')).collect::<Vec<u8>>()
    };
    path(id).ends_with(&path(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_of_what_was_asked_for_whatever_its_query_and_however_it_is_written() {
        let asked = "fedora/canvas/obj/a%20b/page?update=true&disallow=x-iiif-mender/none";
        for id in [
            "https://a.test/iiif-service/fedora/canvas/obj/a b/page?disallow=x-iiif-mender/none",
            "http://localhost:9000/fedora/canvas/obj/a%20b/page/",
        ] {
            assert!(is_of(id, asked), "{id}");
        }
        assert!(!is_of("https://a.test/iiif-service/fedora/canvas/obj/other/page", asked));
    }

    #[test]
    fn what_an_answer_has_shown_is_known_and_a_service_that_ignores_it_is_tried_anew() {
        let (support, now) = (VariantSupport::default(), Instant::now());
        assert_eq!(support.known(now), None);
        assert!(support.record(false, now));
        assert_eq!((support.known(now), support.known(now + RETRY_AFTER)), (Some(false), None));
        assert!(support.record(true, now) && !support.record(true, now));
        assert_eq!(support.known(now + RETRY_AFTER), Some(true));
    }

    #[test]
    fn the_plain_canvas_of_a_variant_keeps_its_own_query() {
        for plain_one in ["/c", "/c?page=2"] {
            let canvas = format!("https://a.test{plain_one}");
            let variant = crate::iiif::CanvasUrl::parse(&canvas).and_then(|canvas| canvas.variant());
            assert_eq!(plain(&variant.expect("a variant")), Some(plain_one));
        }
        assert_eq!(plain("/c?disallow=image/png"), None);
    }

    #[test]
    fn update_stands_before_what_is_left_out() {
        let asked = |variant| built_anew(variant);
        assert_eq!(asked("/c?disallow=x-iiif-mender/none"), "/c?update=true&disallow=x-iiif-mender/none");
        assert_eq!(asked("/c?page=2&disallow=x"), "/c?page=2&update=true&disallow=x");
        assert!(
            is_honoured("https://a.test/c?disallow=x-iiif-mender/none")
                && !is_honoured("https://a.test/c")
                && !is_honoured("https://a.test/c?page=2")
        );
    }

    #[test]
    fn other_nodes_are_told_once_and_again_before_they_forget() {
        let (support, now) = (VariantSupport::default(), Instant::now());
        assert!(support.is_to_be_shared(now) && !support.is_to_be_shared(now));
        let later = now + RETRY_AFTER / 2;
        assert!(!support.is_to_be_shared(later - Duration::from_millis(1)));
        assert!(support.is_to_be_shared(later) && !support.is_to_be_shared(later));
    }
}
