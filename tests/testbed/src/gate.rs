//! A gate that tests close and open: a stall without sleeps.

use tokio::sync::watch;

/// Open at first.
#[derive(Debug, Default)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn shut(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(false);
    }

    /// Goes on once the gate is open.
    pub(crate) async fn pass(&self) {
        let mut shut = self.0.subscribe();
        let _open = shut.wait_for(|shut| !shut).await;
    }
}
