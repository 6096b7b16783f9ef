//! iiif-mender with a cache, before origins of the test's making.

use testbed::{Fetched, Flow, Origin};

use crate::support::edge::{Edge, route};

/// A tile of nobody's image.
pub(crate) const TILE: &str = "/iiif/2/page-1/0,0,512,512/256,/0/default.jpg";

/// Its info.json.
pub(crate) const INFO: &str = "/iiif/2/page-1/info.json";

/// iiif-mender with a cache of 16 MiB before this image server (URL), and more lines `section.key = value`.
pub(crate) async fn cached(server: &str, more: &str) -> Edge {
    let route = route("/iiif/2/", &format!("{server}/iiif/2/"), "image", "");
    Edge::routed(&route, &format!("cache.memory = 16MiB\nheal.ladder = direct\n{more}")).await
}

/// An image server whose answers have these fields. Each answer has another body: the count of requests so far.
pub(crate) fn counting(fields: &'static [(&'static str, &'static str)]) -> Origin {
    let count = std::sync::atomic::AtomicUsize::new(1);
    Origin::start(move |_| {
        let count = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut all = vec![("content-type", "image/jpeg")];
        all.extend_from_slice(fields);
        Origin::answer(200, &all, Flow::sized(format!("answer {count}")))
    })
}

/// Fields of an answer that may be kept for a minute.
pub(crate) const MINUTE: &[(&str, &str)] = &[("cache-control", "max-age=60, public"), ("etag", "\"one\"")];

/// What the cache says that it did.
pub(crate) fn did(answer: &Fetched) -> &str {
    answer.header("cache-status").strip_prefix("iiif-mender; ").unwrap_or_default()
}
