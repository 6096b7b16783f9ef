//! The `iiif-mender` command. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    iiif_mender::cli::run()
}
