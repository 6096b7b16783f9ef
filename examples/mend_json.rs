//! Mends JSON with raw backslashes, newlines and tabs in its labels, from standard input to standard output.
//!
//! `cargo run --example mend_json < broken.json > mended.json`

use std::error::Error;
use std::io::{self, Read as _, Write as _};

use iiif_mender::iiif::json_repair;

fn main() -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    let mended =
        json_repair::repair_json(&bytes).ok_or("this is broken otherwise: guessing is not mending")?;
    io::stdout().write_all(&mended)?;
    Ok(())
}
