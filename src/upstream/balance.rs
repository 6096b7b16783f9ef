//! Balancing: the choice of the server with the fewest requests among those that are fit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Upstream;
use super::server::{InFlightGuard, UpstreamServer};

/// Servers that a request was sent to already, as bits of their positions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TriedServers {
    servers: u64,
    /// True if a server that is out was tried.
    unfit: bool,
}

impl TriedServers {
    fn has(self, at: usize) -> bool {
        // Beyond the bits (the configuration allows no more servers) all count as tried.
        self.servers.checked_shr(u32::try_from(at).unwrap_or(u32::MAX)).is_none_or(|bits| bits & 1 == 1)
    }

    fn add(&mut self, at: usize) {
        self.servers |= 1_u64.checked_shl(u32::try_from(at).unwrap_or(u32::MAX)).unwrap_or(0);
    }
}

impl Upstream {
    /// Chooses a server that this request was not sent to yet. Servers that are out are skipped; but if no other server is
    /// left, one of them gets the request, because a refusal without a try could only be worse.
    pub(super) fn choose(&self, tried: &mut TriedServers) -> Option<InFlightGuard> {
        let at = match &*self.servers {
            [_] => (!tried.has(0)).then_some(0),
            servers => self.least_loaded(servers, *tried, UpstreamServer::is_fit).or_else(|| {
                let last = if tried.unfit { None } else { self.least_loaded(servers, *tried, |_| true) };
                tried.unfit = true;
                last
            }),
        }?;
        if tried.servers > 0 {
            self.meters.retried("next_server");
        }
        tried.add(at);
        Some(InFlightGuard::on(&self.servers[at]))
    }

    fn least_loaded(
        &self,
        servers: &[Arc<UpstreamServer>],
        tried: TriedServers,
        may: impl Fn(&UpstreamServer) -> bool,
    ) -> Option<usize> {
        // Of equals the first wins, so the start moves on.
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % servers.len();
        let mut now = None;
        let turn = (first..servers.len()).chain(0..first).filter(|at| !tried.has(*at));
        turn.filter(|at| {
            let server = &servers[*at];
            let fit = may(server);
            if !fit {
                server.try_again(*now.get_or_insert_with(Instant::now));
            }
            fit
        })
        .min_by_key(|at| servers[*at].load())
    }
}
