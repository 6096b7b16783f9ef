//! Streams of bytes from and to a server.

use std::fmt::Debug;

use tokio::io::{AsyncRead, AsyncWrite};

/// `Io` is the transport of a connection: TCP, or TLS.
pub(in crate::upstream) trait Io:
    AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin
{
}

impl<I: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin> Io for I {}

/// A stream of bytes from and to a server.
pub(in crate::upstream) type Stream = Box<dyn Io>;
