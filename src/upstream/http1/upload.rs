//! Uploads: a task of its own sends the body of a request, while the answer is waited for or is read already.

use std::io;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::head::RequestFraming;
use super::stream::Stream;
use crate::upstream::body::Body;
use crate::upstream::error::BodyError;

/// `UploadTask` is the task that sends one body. Dropping it ends the task.
#[derive(Debug)]
pub(super) struct UploadTask {
    result: oneshot::Receiver<Result<WriteHalf<Stream>, UploadError>>,
    task: AbortHandle,
    /// The writing half of the connection, once the body was sent to its end.
    whole: Option<WriteHalf<Stream>>,
}

/// `UploadError` is the reason why a body was not sent to its end.
#[derive(Debug)]
enum UploadError {
    /// The viewer's body broke.
    Viewer(BodyError),
    /// The upstream takes no more bytes. An early answer is still read.
    Upstream,
}

impl UploadTask {
    pub(super) fn start(body: Body, framing: RequestFraming, to: WriteHalf<Stream>) -> Self {
        let (sender, result) = oneshot::channel();
        let task = tokio::spawn(async move {
            let _ = sender.send(send(body, framing, to).await);
        });
        Self { result, task: task.abort_handle(), whole: None }
    }

    /// Ready if the viewer's body broke.
    pub(super) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if !self.result.is_terminated() {
            match self.result.poll_unpin(cx) {
                Poll::Ready(Ok(Ok(half))) => self.whole = Some(half),
                Poll::Ready(Ok(Err(UploadError::Viewer(error)))) => return Poll::Ready(error),
                Poll::Ready(Ok(Err(UploadError::Upstream)) | Err(_)) | Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// The writing half, if the body was sent to its end.
    pub(super) fn into_whole(mut self) -> Option<WriteHalf<Stream>> {
        self.whole.take().or_else(|| self.result.try_recv().ok()?.ok())
    }
}

impl Drop for UploadTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn send(
    body: Body,
    framing: RequestFraming,
    mut to: WriteHalf<Stream>,
) -> Result<WriteHalf<Stream>, UploadError> {
    let mut body = body;
    let mut left = match framing {
        RequestFraming::Length(length) => Some(length),
        RequestFraming::Bodyless | RequestFraming::Chunked => None,
    };
    while let Some(frame) = body.frame().await {
        // Trailers are not passed on.
        let Ok(data) = frame.map_err(UploadError::Viewer)?.into_data() else { continue };
        if data.is_empty() {
            continue;
        }
        let sent = match &mut left {
            Some(left) => {
                let rest = left.checked_sub(data.len() as u64);
                *left = rest.ok_or(UploadError::Viewer(BodyError::ViewerTooLong))?;
                to.write_all(&data).await
            }
            None => send_chunk(&mut to, &data).await,
        };
        sent.map_err(|_| UploadError::Upstream)?;
    }
    match left {
        Some(0) => {}
        Some(_) => return Err(UploadError::Viewer(BodyError::ViewerCut)),
        None => to.write_all(b"0\r\n\r\n").await.map_err(|_| UploadError::Upstream)?,
    }
    to.flush().await.map_err(|_| UploadError::Upstream)?;
    Ok(to)
}

async fn send_chunk(to: &mut WriteHalf<Stream>, data: &[u8]) -> io::Result<()> {
    to.write_all(format!("{:x}\r\n", data.len()).as_bytes()).await?;
    to.write_all(data).await?;
    to.write_all(b"\r\n").await
}
