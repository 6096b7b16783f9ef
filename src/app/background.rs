//! Periodic background tasks.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;

use super::services::{ProcessState, Services};
use super::setup_check::check_setup;
use crate::cache::CacheState;
use crate::index::shared::follower::LearnedFollower;
use crate::observe::{Metrics, SAMPLE_EVERY};
use crate::upstream::Upstream;

/// Interval of pruning, which rarely finds anything to do.
const PRUNE_EVERY: Duration = Duration::from_secs(5);

/// Handles of the background tasks.
pub(super) struct BackgroundTasks {
    keeping_warm: JoinHandle<()>,
    sweeping: JoinHandle<()>,
    keeping_index: JoinHandle<()>,
    checking: JoinHandle<()>,
    following_cluster: JoinHandle<()>,
    checking_setup: JoinHandle<()>,
}

impl BackgroundTasks {
    pub(super) fn start(services: &Services, state: &ProcessState) -> Self {
        let (warm, sweep) = (services.healer.clone(), services.healer.clone());
        Self {
            keeping_warm: tokio::spawn(async move { warm.keep_warm().await }),
            sweeping: tokio::spawn(async move { sweep.resume_sweep().await }),
            keeping_index: services.spawn_index_task(state),
            checking: tokio::spawn(run_health_checks(&services.upstreams)),
            following_cluster: tokio::spawn(follow_cluster(services, state)),
            checking_setup: tokio::spawn(check_setup(services, state)),
        }
    }

    /// Restarts the tasks whose settings changed: rounds that go on for hours are not restarted without need.
    pub(super) fn restart_affected(&mut self, old: &Services, new: &Services, state: &ProcessState) {
        let (before, after) = (&old.settings, &new.settings);
        let others = before.routes != after.routes
            || before.upstream != after.upstream
            || before.server.public_hosts != after.server.public_hosts;
        if others {
            self.checking.abort();
            self.checking = tokio::spawn(run_health_checks(&new.upstreams));
        }
        if before != after {
            self.following_cluster.abort();
            self.following_cluster = tokio::spawn(follow_cluster(new, state));
            self.checking_setup.abort();
            self.checking_setup = tokio::spawn(check_setup(new, state));
        }
        if others || before.index != after.index || before.heal != after.heal {
            self.keeping_warm.abort();
            let healer = new.healer.clone();
            self.keeping_warm = tokio::spawn(async move { healer.keep_warm().await });
        }
        if others || before.index != after.index || before.cluster != after.cluster {
            self.keeping_index.abort();
            self.keeping_index = new.spawn_index_task(state);
        }
    }

    pub(super) fn abort(&self) {
        let Self { keeping_warm, sweeping, keeping_index, checking, following_cluster, checking_setup } =
            self;
        for task in [keeping_warm, sweeping, keeping_index, checking, following_cluster, checking_setup] {
            task.abort();
        }
    }
}

/// Records the samples of the last half hour that live pages show.
pub(super) async fn sample_periodically(metrics: Arc<Metrics>) {
    let mut every = tokio::time::interval(SAMPLE_EVERY);
    loop {
        every.tick().await;
        metrics.sample();
    }
}

/// Applies what other nodes found out and learned.
fn follow_cluster(services: &Services, state: &ProcessState) -> impl Future<Output = ()> + use<> {
    let healer = services.healer.clone();
    let follower = services.cluster.clone().map(|cluster| {
        let (index, settings) = (Arc::clone(&state.index), Arc::clone(&services.settings));
        LearnedFollower { index, settings, cluster, metrics: Arc::clone(&state.metrics) }
    });
    async move {
        if let Some(follower) = follower {
            futures_util::future::join(healer.follow_cluster(), follower.run()).await;
        }
    }
}

/// Checks the servers that are to be checked.
fn run_health_checks(upstreams: &[Arc<Upstream>]) -> impl Future<Output = ()> + use<> {
    let checks =
        Upstream::distinct(upstreams).map(|upstream| Upstream::keep_checked(Arc::downgrade(upstream)));
    let checks: Vec<_> = checks.collect();
    async move {
        futures_util::future::join_all(checks).await;
    }
}

pub(super) async fn prune_periodically(services: Arc<ArcSwap<Services>>, cache: CacheState) {
    let mut every = tokio::time::interval(PRUNE_EVERY);
    loop {
        every.tick().await;
        let services = services.load_full();
        for upstream in &services.upstreams {
            upstream.prune();
        }
        services.healer.prune();
        cache.prune();
    }
}
