//! See an expired image come back: stand-ins for the image server and the canvas service, iiif-mender before them,
//! a story that plays by itself, and a page to try it out.
//!
//! `cargo run --release --example demo` plays the story and serves the page until Ctrl-C. With `-- --once` it ends
//! after the story; the exit status tells whether every step went as it should.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the demo talks to the person who started it")]

mod page;
mod stage;
mod story;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use stage::Stage;

type Whatever = Box<dyn Error + Send + Sync>;

const USAGE: &str = "\
Usage: cargo run --release --example demo -- [--once] [--listen ADDRESS:PORT]

  --once     play the story, check every step, and end
  --listen   where iiif-mender listens (default 127.0.0.1:0, a free port)";

fn main() -> ExitCode {
    let (once, listen) = match arguments(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(demo(once, listen)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demo ended early: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<(bool, SocketAddr), String> {
    let (mut once, mut listen) = (false, SocketAddr::from(([127, 0, 0, 1], 0)));
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--once" => once = true,
            "--listen" => {
                let address = given.next().unwrap_or_default();
                listen = address.parse().map_err(|_| format!("--listen {address}: not ADDRESS:PORT"))?;
            }
            other => return Err(format!("{other}: no such option")),
        }
    }
    Ok((once, listen))
}

/// True: every step of the story went as it should.
async fn demo(once: bool, listen: SocketAddr) -> Result<bool, Whatever> {
    let stage = Stage::set(listen).await?;
    stage.introduces_itself()?;
    let all_well = story::play(&stage).await?;
    if once {
        stage.ends().await;
        return Ok(all_well);
    }
    println!("Now you. Open one of these, and press \"Expire everything\":\n");
    println!("  {:<38} every way to heal", stage.url("/"));
    println!("  {:<38} only visit and rebuild: slower, to watch it work\n", stage.careful_url("/"));
    println!("Ctrl-C ends it.");
    tokio::signal::ctrl_c().await?;
    println!("\nbye");
    stage.ends().await;
    Ok(all_well)
}
