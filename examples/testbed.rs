//! The stand-ins of the tests, standing: for validators and for looking around. Not a part of the product.
//!
//! `cargo run --example testbed -- FOLDER` writes the manifests into FOLDER, prints where everything is as one line of
//! JSON, and stays until its standard input ends.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a tool for tests: what it cannot do ends it")]

use std::io::Read as _;
use std::path::PathBuf;

use testbed::Testbed;

#[tokio::main]
async fn main() {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("a folder for the manifests"));
    let bed = Testbed::start().await;
    bed.write_manifests(&folder).expect("the folder can be written to");
    std::fs::write(folder.join("presentation-3.json"), bed.manifest_json_p3("obj/minutes")).expect("a file");
    let pages = bed.pages();
    let mut presentations: Vec<_> = pages.iter().map(|page| page.presentation_path.clone()).collect();
    presentations.dedup();
    let places = serde_json::json!({
        "images": bed.images.origin(),
        "service": bed.service.origin(),
        "identifier": bed.page().identifier,
        "presentations": presentations,
    });
    println!("{places}");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.ok();
}
