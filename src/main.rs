//! The `iiif-mender` command. Everything is in the library.

use std::process::ExitCode;

/// glibc's allocator keeps freed memory between used blocks: in half an hour of faults the resident memory grew from 35 to
/// 44 MiB, and with this one it stayed at 25 to 26. (docs/decisions/0004-the-data-path.md)
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    iiif_mender::cli::run()
}
