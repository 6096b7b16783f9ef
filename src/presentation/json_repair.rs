//! Repair of answers whose type is JSON and whose body is not.
//!
//! UPSTREAM: the service writes a backslash, newline or tab of a label as it is (upstream.md "Errors of the canvas
//! service"), and one such label costs a viewer the whole book. Only the characters that make the document invalid are
//! changed ([`json_repair::repair_json`]); a document beyond repair goes out as it came.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::buffer::{BufferedDocument, ParsePermits};
use crate::iiif::json_repair;
use crate::index::learn::traffic::{begins_like_json, is_json};
use crate::observe::{EventKind, Metrics};
use crate::upstream::MemoryBudget;

/// Field that names the change of a repaired document.
const REPAIRED: HeaderName = HeaderName::from_static("iiif-mender-repaired");

/// Result of the check.
#[derive(Debug, PartialEq, Eq)]
enum JsonCheck {
    /// JSON, or in a coding that is not read here, or no document.
    Nothing,
    Mended(Bytes),
    Hopeless,
}

/// Repairs the document if it needs to be; `most`: how long it may be when unpacked.
pub(super) async fn repair(
    whole: &mut BufferedDocument,
    most: usize,
    permits: &ParsePermits,
    budget: &MemoryBudget,
    metrics: &Metrics,
) {
    let held = whole.clone();
    match permits.parse(held.body.len(), move || check(&held, most)).await {
        Some(JsonCheck::Mended(body)) => {
            metrics.event(EventKind::JsonRepaired);
            whole.replace(budget.count(body.len()).keep(body));
            whole.head.headers.insert(REPAIRED, HeaderValue::from_static("json"));
        }
        Some(JsonCheck::Hopeless) => metrics.event(EventKind::JsonHopeless),
        Some(JsonCheck::Nothing) | None => {}
    }
}

fn check(whole: &BufferedDocument, most: usize) -> JsonCheck {
    let Some(plain) = whole.plain(most) else { return JsonCheck::Nothing };
    if !is_json(&whole.head.headers) && !begins_like_json(&plain) {
        return JsonCheck::Nothing;
    }
    match json_repair::repair_json(&plain) {
        Some(Cow::Borrowed(same)) if same.len() == plain.len() => JsonCheck::Nothing,
        // A byte order mark stood before the document.
        Some(Cow::Borrowed(rest)) => JsonCheck::Mended(plain.slice_ref(rest)),
        Some(Cow::Owned(mended)) => JsonCheck::Mended(mended.into()),
        None => JsonCheck::Hopeless,
    }
}
