//! Whole bodies, for documents that are read and not passed on: bounded, and only as long as they make progress.

use std::error::Error;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

/// Least bytes in each [`PROGRESS_TIME`] of a body that has not ended: on average 1 KiB a second.
///
/// SECURITY: a server that sends a byte now and then is never silent for [`crate::config::settings::Timeouts`], and would
/// hold its reader up to the whole deadline.
const PROGRESS_BYTES: u64 = 20 << 10;

/// Interval at which the progress of a body is checked.
const PROGRESS_TIME: Duration = Duration::from_secs(20);

/// Reason why a body is not whole.
#[derive(Debug, thiserror::Error)]
pub enum WholeError {
    /// The body is longer than the limit.
    #[error("it is too long")]
    TooLong,
    /// The body comes too slowly.
    #[error("it comes too slowly, less than {} KiB in {} s", PROGRESS_BYTES >> 10, PROGRESS_TIME.as_secs())]
    Slow,
    /// The body broke.
    #[error("it broke")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
}

/// Reads a body of at most `most` bytes to its end. The whole deadline is the caller's.
pub async fn read<B>(body: B, most: usize) -> Result<Bytes, WholeError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let read = AtomicU64::new(0);
    let counted = body.map_frame(|frame| {
        let length = frame.data_ref().map_or(0, Bytes::len);
        read.fetch_add(u64::try_from(length).unwrap_or(u64::MAX), Ordering::Relaxed);
        frame
    });
    let mut all = pin!(Limited::new(counted, most).collect());
    let mut before = 0;
    loop {
        match timeout(PROGRESS_TIME, all.as_mut()).await {
            Ok(Ok(all)) => return Ok(all.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(WholeError::TooLong),
            Ok(Err(error)) => return Err(WholeError::Broken(error)),
            Err(_) => {}
        }
        let now = read.load(Ordering::Relaxed);
        if now.saturating_sub(before) < PROGRESS_BYTES {
            return Err(WholeError::Slow);
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{self, StreamExt as _};
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    const MOST: usize = 1 << 20;

    /// A body that yields the next number of bytes every half second.
    fn dripping(drops: impl IntoIterator<Item = usize>) -> impl Body<Data = Bytes, Error = std::io::Error> {
        let drops: Vec<_> = drops.into_iter().collect();
        StreamBody::new(stream::iter(drops).then(|bytes| async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok(Frame::data(Bytes::from(vec![b'x'; bytes])))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_only_drips_is_given_up_and_a_slow_one_is_not() {
        let started = tokio::time::Instant::now();
        assert!(matches!(read(dripping(vec![1; 10_000]), MOST).await, Err(WholeError::Slow)));
        assert_eq!(started.elapsed(), PROGRESS_TIME);
        // A body that is quick first and drips later.
        let quick_at_first = std::iter::once(MOST / 2).chain(vec![1; 10_000]);
        assert!(matches!(read(dripping(quick_at_first), MOST).await, Err(WholeError::Slow)));
        let slow = read(dripping(vec![1024; 600]), MOST).await.expect("a slow body");
        assert_eq!(slow.len(), 600 << 10);
        assert_eq!(read(dripping(vec![1; 3]), MOST).await.expect("a short body").len(), 3);
        assert!(matches!(read(dripping(vec![MOST, 1]), MOST).await, Err(WholeError::TooLong)));
    }
}
