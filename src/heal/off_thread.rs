//! Work that takes long on the processor: on a thread apart, so that it holds up nobody.

/// Runs it. `None`: it broke. (In tests it runs at once: they play in virtual time, and everything in one order.)
pub(in crate::heal) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    #[cfg(test)]
    return Some(work());
    #[cfg(not(test))]
    tokio::task::spawn_blocking(work).await.ok()
}
