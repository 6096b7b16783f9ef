//! Handover of the sockets to a successor process, so that a restart or an upgrade loses no connection.
//!
//! The successor is the program as it lies on the disk now, started with our arguments and our sockets (`LISTEN_FDS`). When
//! the successor writes to its standard output that it serves, this process stops; otherwise this process goes on.

use std::env;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::App;

/// Set for a successor whose predecessor waits for it.
const AWAITED_VARIABLE: &str = "IIIF_MENDER_AWAITED";

/// Line that a successor writes when it serves.
const READY: &str = "ready\n";

/// Time limit for a successor to serve: it opens the index, and binds new addresses of its configuration.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(30);

/// The first of the file descriptors that are passed (`sd_listen_fds(3)`).
const FIRST: i32 = 3;

/// Errors of a handover.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandoverError {
    #[error("it cannot be started: {0}")]
    Start(#[from] io::Error),
    #[error("its sockets cannot be passed: {0}")]
    Pass(#[from] command_fds::FdMappingCollision),
    #[error("it ended before it served; the log says why")]
    Ended,
    #[error("it did not serve within {} s", SUCCESSOR_TIMEOUT.as_secs())]
    Slow,
}

/// Starts a successor on our sockets and waits until it serves; its process id.
pub(super) async fn start(app: &App) -> Result<u32, HandoverError> {
    let sockets: Vec<OwnedFd> = app.sockets()?.into_iter().map(OwnedFd::from).collect();
    let mut command = Command::new(program()?);
    command
        .args(env::args_os().skip(1))
        .env("LISTEN_FDS", sockets.len().to_string())
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDNAMES")
        // systemd's watchdog follows the process it knows: the new main pid is sent to it later.
        .env_remove("WATCHDOG_PID")
        .env(AWAITED_VARIABLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let pass = |(child_fd, parent_fd)| FdMapping { parent_fd, child_fd };
    command.fd_mappings((FIRST..).zip(sockets).map(pass).collect())?;
    let mut child = command.spawn()?;
    let process = child.id().ok_or(HandoverError::Ended)?;
    let Some(mut says) = child.stdout.take() else { return Err(HandoverError::Ended) };
    let mut said = [0; READY.len()];
    let why = match timeout(SUCCESSOR_TIMEOUT, says.read_exact(&mut said)).await {
        Ok(Ok(_)) if said == READY.as_bytes() => return Ok(process),
        Ok(_) => HandoverError::Ended,
        Err(_) => HandoverError::Slow,
    };
    let _ = child.kill().await;
    Err(why)
}

/// The program by its name: `/proc/self/exe` would still be the old one after an upgrade.
fn program() -> io::Result<std::path::PathBuf> {
    let own = env::current_exe()?;
    // The kernel appends this to the path of a program that was replaced since the start.
    let name = own.to_string_lossy();
    Ok(name.strip_suffix(" (deleted)").map_or_else(|| own.clone(), Into::into))
}

/// Tells the predecessor, if there is one, that this process serves.
pub(super) fn tell_predecessor() -> io::Result<()> {
    if env::var_os(AWAITED_VARIABLE).is_none() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(READY.as_bytes())?;
    out.flush()
}
