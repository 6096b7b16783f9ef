//! Work that takes long on the processor: runs on a thread apart, so that it delays no request.

/// Runs `work` on a blocking thread. `None`: it panicked. (In tests it runs at once: they use virtual time, and need one
/// order.)
pub(in crate::heal) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    #[cfg(test)]
    return Some(work());
    #[cfg(not(test))]
    tokio::task::spawn_blocking(work).await.ok()
}
