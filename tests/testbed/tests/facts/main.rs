//! The facts of `upstream.md`, pinned on the stand-ins: one test a fact, its name the sentence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod edge;
mod evidence;
mod healing;
mod images;
mod poison;
mod service;
mod variants;

use testbed::{Fetched, Page, Testbed};

/// GET at the image server.
async fn image(testbed: &Testbed, path: &str) -> Fetched {
    testbed::get(&format!("{}{path}", testbed.images.origin())).await
}

/// GET at the canvas service.
async fn ask(testbed: &Testbed, path: &str) -> Fetched {
    testbed::get(&format!("{}{path}", testbed.service.origin())).await
}

/// The status of a page's thumbnail.
async fn shown(testbed: &Testbed, page: &Page) -> u16 {
    image(testbed, &page.thumbnail_path()).await.status
}

/// The path with `update=true`, appended as upstream.md says.
fn update(path: &str) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}update=true")
}
