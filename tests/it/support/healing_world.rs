//! What the suites about hard healing share: a book, readers who come again, and the stored documents as they were.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testbed::{Builder, Page, Stored, Testbed};

use crate::support::world::{World, patiently};

/// Sizes that no probe asks for: each round of readers takes another one, so that no derivative cache has it.
pub(crate) fn tile(round: usize) -> String {
    format!("full/{},/0/default.jpg", 40 + round)
}

/// A testbed with one book of small pages.
pub(crate) fn pages(count: u32) -> Builder {
    Testbed::builder().book("obj/book", count).page_size(128, 128)
}

/// One book, and nothing ahead of its reader.
pub(crate) async fn book(count: u32, more: &str) -> World {
    World::over(pages(count).start().await, &format!("heal.ahead = 0\n{more}")).await
}

/// Every page once, all at the same time. The statuses, in the order of the pages.
pub(crate) async fn read(world: &World, pages: &[Page], round: usize) -> Vec<u16> {
    let tile = tile(round);
    let readers = pages.iter().map(|page| async { world.get(&page.image_path(&tile)).await.status });
    join_all(readers).await
}

/// How many are not 200.
pub(crate) fn lost(statuses: &[u16]) -> usize {
    statuses.iter().filter(|status| **status != 200).count()
}

/// Readers who come again and again for so long. They read different sizes.
pub(crate) async fn read_for(world: &World, pages: &[Page], time: Duration) {
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < time {
        read(world, pages, round % 40).await;
        round += 1;
        // A viewer's own pace.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How long it takes until every page was 200 once.
///
/// # Panics
/// When some page is not back in time.
pub(crate) async fn all_back(world: &World, pages: &[Page], limit: Duration) -> Duration {
    let began = Instant::now();
    let mut left = pages.to_vec();
    loop {
        let statuses = read(world, &left, 60).await;
        let mut statuses_of = statuses.iter();
        left.retain(|_| statuses_of.next() != Some(&200));
        if left.is_empty() {
            return began.elapsed();
        }
        assert!(
            began.elapsed() < limit,
            "{} of {} pages are not back: {statuses:?}",
            left.len(),
            pages.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the image server has the keys of these pages again: no reader comes, so somebody else heals them.
pub(crate) async fn keys_are_back(bed: &Testbed, pages: &[Page]) {
    patiently("the keys are back", || pages.iter().all(|page| bed.redis.has_key(&page.identifier))).await;
}

/// What the canvas service had stored when the test began.
pub(crate) struct Before(Stored);

impl Before {
    pub(crate) fn of(world: &World) -> Self {
        Self(world.bed.redis.stored())
    }

    /// No stored document is worse, none came that is empty, and at most two canvases were built at once.
    pub(crate) fn unharmed(&self, world: &World) {
        let now = world.bed.redis.stored();
        assert_eq!(now.worse_than(&self.0), [""; 0], "stored documents became worse");
        assert_eq!(now.empty_since(&self.0), [""; 0], "empty documents were stored");
        Self::polite(world);
    }

    /// No stored document is worse, and at most two canvases were built at once.
    pub(crate) fn no_worse(&self, world: &World) {
        assert_eq!(world.bed.redis.stored().worse_than(&self.0), [""; 0], "stored documents became worse");
        Self::polite(world);
    }

    fn polite(world: &World) {
        let most = world.bed.counts().generations_most;
        assert!(most <= 2, "{most} canvases were built at once");
    }
}
