//! Which canvas owns an image? Reads manifests (Presentation 2 or 3) from files.
//!
//! `cargo run --example who_owns -- IDENTIFIER MANIFEST…`

use std::error::Error;
use std::fs::File;
use std::io::{self, Write as _};

use iiif_mender::iiif::identifier::same_file;
use iiif_mender::iiif::{Identifier, manifest};

fn main() -> Result<(), Box<dyn Error>> {
    let mut given = std::env::args().skip(1);
    let identifier = given.next().ok_or("which identifier?")?;
    let key = Identifier::new(&identifier).key();
    let mut found = Vec::new();
    for file in given {
        manifest::walk(File::open(&file)?, &mut |canvas| {
            if canvas.images.iter().any(|image| same_file(image, &key)) {
                found.push(canvas.id);
            }
        })
        .map_err(|error| format!("{file}: {error}"))?;
    }
    for canvas in found {
        writeln!(io::stdout(), "{canvas}")?;
    }
    Ok(())
}
