//! The stand-ins as a program: for browser tests, validators, the tutorial and `deploy/compose.yaml`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to whoever started it")]

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use testbed::{Control, Gateway, Testbed};
use tokio::signal::unix::{SignalKind, signal};

/// A third of the stand-ins' instructions for a heal were glibc's malloc and free, on the core of the benches' load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
Usage: iiif-mender-testbed [OPTIONS]

Stand-ins for an image server (Cantaloupe) and its canvas service (the IR IIIF Service), until they are stopped.

  --book PATH:PAGES     a book; default: obj/minutes:5, obj/report (a PDF of 3 pages) and obj/single
  --pdf PATH:PAGES      a PDF
  --single PATH         a picture
  --page-size W:H       the size of all that is named after it (1200:1600)
  --manifests DIR       write the manifests there
  --presentation-3 PATH that book's manifest as Presentation 3 as well, in presentation-3.json
  --public-base URL     what URLs in manifests begin with (https://api.library.tamu.edu)
  --images ADDRESS      where the image server listens (127.0.0.1:0, a free port)
  --service ADDRESS     where the canvas service listens
  --gateway ADDRESS     one host for both and for everything else, at this address (default: none)
  --error-bytes N       error pages that pass the gateway have at least so many bytes
  --control ADDRESS     where the switches are: GET / tells, POST /expire makes everything expire, and so on";

struct Asked {
    builder: testbed::Builder,
    control: SocketAddr,
    gateway: Option<SocketAddr>,
    error_bytes: usize,
    manifests: Option<PathBuf>,
    presentation_3: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let asked = match arguments(std::env::args().skip(1)) {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(asked).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: help is asked for.
fn arguments(mut given: impl Iterator<Item = String>) -> Result<Option<Asked>, String> {
    let mut asked = Asked {
        builder: Testbed::builder(),
        control: SocketAddr::from(([127, 0, 0, 1], 0)),
        gateway: None,
        error_bytes: 0,
        manifests: None,
        presentation_3: None,
    };
    while let Some(option) = given.next() {
        if matches!(&*option, "--help" | "-h") {
            return Ok(None);
        }
        let value =
            given.next().ok_or_else(|| format!("{option}: no such option, or its value is missing"))?;
        let builder = asked.builder;
        let counted = || {
            let (path, pages) =
                value.rsplit_once(':').ok_or("two values with a colon between them, please")?;
            Ok::<_, String>((path, pages.parse().map_err(|_| format!("{pages}: not a number"))?))
        };
        let address = || value.parse().map_err(|_| format!("{option} {value}: not ADDRESS:PORT"));
        asked.builder = match &*option {
            "--book" => counted().map(|(path, pages)| builder.book(path, pages))?,
            "--pdf" => counted().map(|(path, pages)| builder.pdf(path, pages))?,
            "--single" => builder.single(&value),
            "--page-size" => counted().and_then(|(width, height)| {
                let width = width.parse().map_err(|_| format!("{width}: not a number"))?;
                Ok(builder.page_size(width, height))
            })?,
            "--public-base" => builder.public_base(&*value),
            "--images" => builder.images_at(address()?),
            "--service" => builder.service_at(address()?),
            "--gateway" => {
                asked.gateway = Some(address()?);
                builder
            }
            "--error-bytes" => {
                asked.error_bytes = value.parse().map_err(|_| format!("{value}: not a number"))?;
                builder
            }
            "--control" => {
                asked.control = address()?;
                builder
            }
            "--presentation-3" => {
                asked.presentation_3 = Some(value.clone());
                builder
            }
            "--manifests" => {
                asked.manifests = Some(PathBuf::from(&value));
                builder
            }
            _ => return Err(format!("{option}: no such option")),
        };
    }
    Ok(Some(asked))
}

async fn run(asked: Asked) -> Result<(), Box<dyn Error>> {
    let bed = Arc::new(asked.builder.start().await);
    if let Some(directory) = asked.manifests {
        std::fs::create_dir_all(&directory)?;
        bed.write_manifests(&directory)?;
        if let Some(path) = asked.presentation_3 {
            std::fs::write(directory.join("presentation-3.json"), bed.manifest_json_p3(&path))?;
        }
    }
    let gateway = asked.gateway.map(|address| Gateway::start_at(address, &bed));
    let control = Control::start(Arc::clone(&bed), asked.control);
    println!("image server    {}", bed.images.origin());
    println!("canvas service  {}", bed.service.origin());
    if let Some(gateway) = &gateway {
        gateway.errors_of(asked.error_bytes);
        println!("gateway         {}", gateway.origin());
    }
    println!("switches        {}", control.url());
    // There is nothing to clean up. (The first process of a container gets no signal that it does not ask for.)
    let (mut ends, mut stops) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = ends.recv() => {}
        _ = stops.recv() => {}
    }
    Ok(())
}
