//! A connection after HTTP: bytes of another protocol, passed on both ways.
//!
//! The tunnel ends when the upstream has ended its side, after `server.idle_timeout` in which nothing moved or a viewer took
//! nothing, and with `server.drain` when we stop. A viewer may end his side before.

use std::future::pending;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, split};

use super::EndCause;
use super::tracked_io::TrackedIo;
use crate::upstream::Tunnel;

/// Passes bytes on until the end; `said` came after the request already.
pub(super) async fn pass<I>(io: TrackedIo<I>, said: Bytes, tunnel: Tunnel) -> Result<(), EndCause>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let Tunnel { from: mut from_upstream, to: mut to_upstream, held: _held } = tunnel;
    let (mut from_viewer, mut to_viewer) = split(io.with_unread(said).beyond_http());
    let up = async {
        copy(&mut from_viewer, &mut to_upstream).await?;
        to_upstream.shutdown().await?;
        // The upstream may still send.
        pending::<io::Result<()>>().await
    };
    let down = async {
        copy(&mut from_upstream, &mut to_viewer).await?;
        to_viewer.shutdown().await
    };
    tokio::select! {
        ended = down => ended?,
        broken = up => broken?,
    }
    Ok(())
}
