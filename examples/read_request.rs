//! Reads IIIF image requests: what stands behind the prefix of the image server.
//!
//! `cargo run --example read_request -- 'abc/full/600,/0/default.jpg' 'aHR0cHM6Ly9hLnRlc3QvYS5qcGc;2/info.json'`

use std::io::{self, Write as _};

use iiif_mender::iiif::{IdentifierKind, ImageRequest, Target};

fn main() -> io::Result<()> {
    let mut out = io::stdout();
    for path in std::env::args().skip(1) {
        let Some(request) = ImageRequest::parse(&path) else {
            writeln!(out, "{path}: no identifier")?;
            continue;
        };
        let whose = match request.identifier.kind() {
            IdentifierKind::Uuid { uuid, page } => format!("the file of {uuid}, page {page:?}"),
            IdentifierKind::FileUrl { url, page } => format!("the file {url}, page {page:?}"),
            IdentifierKind::Other => format!("{:?}", request.identifier.as_sent()),
        };
        let what = match request.target {
            Target::Base => "its base URI".to_owned(),
            Target::Info => "its info.json".to_owned(),
            Target::Image { region, size, rotation, file } => {
                format!("{region} of it at {size}, turned by {rotation}, as {file}")
            }
            Target::Other => "nothing of the Image API".to_owned(),
        };
        writeln!(out, "{whose}: {what}")?;
    }
    Ok(())
}
