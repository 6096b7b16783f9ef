//! Invariants that must hold at the end of a case.

use std::time::Duration;

use tokio::time::sleep;

use super::case::{SimAct, SimFault};
use super::library::SimDocument;
use super::model::StoredUnder;
use super::run::CaseRun;
use super::world::Resources;

impl CaseRun {
    /// Checks the invariants at rest: no work is left.
    pub(super) async fn check_at_rest(&self) {
        self.model.log(|| "---- at rest".to_owned());
        // A cure is given up after half an hour, and a pause.
        sleep(Duration::from_mins(40)).await;
        for metrics in self.nodes.iter().map(|node| &node.metrics) {
            for (name, gauge) in [
                ("flights", &metrics.flights),
                ("waiting_viewers", &metrics.waiting),
                ("canvas_in_flight", &metrics.canvas_in_flight),
            ] {
                if gauge.get() != 0 {
                    self.model.breaks(format!("(7) {name} is {} at the end", gauge.get()));
                }
            }
        }
        let held = self.budget.taken();
        if held != 0 {
            self.model.breaks(format!("(7) {held} bytes are held at the end"));
        }
        self.check_counts();
    }

    fn check_counts(&self) {
        let model = &self.model;
        let (asked, building, stray) = {
            let state = model.state();
            (state.asked.clone(), state.building, state.stray)
        };
        // A batch run before any reader's request cannot tell the routes apart.
        let mends = model.case.acts.iter().filter(|at| matches!(at.act, SimAct::Mend(_))).count();
        // Without the Redis between them each of the nodes asks for itself.
        let alone = model.case.troubles.iter().any(|trouble| matches!(trouble.fault, SimFault::Shared(_)))
            || model.case.acts.iter().any(|at| at.act == SimAct::FlushShared);
        let each = if alone { model.world().nodes } else { 1 };
        // Before it is known that `disallow` is ignored, a variant is a plain visit: requests that know join it, but not
        // across nodes. (Two plain GETs do no harm.)
        let more = usize::from(model.world().nodes > 1 && !model.world().honours_disallow);
        for (leaf, asked) in asked {
            // Batch probes images by the first route, which cannot see that they are back.
            if mends > 0 && (model.world().two_routes || model.world().two_sites) {
                continue;
            }
            // Behind a login, with `/resources` closed, only a reader's own answer proves that an image is back.
            let is_blind = model.world().login && model.world().resources != Resources::Open;
            if asked.asked > asked.reasons * each + more && !is_blind {
                model.breaks(format!(
                    "(3) canvas {leaf} was asked for {} times for {} reasons",
                    asked.asked, asked.reasons
                ));
            }
        }
        // One viewer is let in beside the others when all of them build, on each node: his document is probably stored.
        let beside = usize::from(model.case.acts.iter().any(|at| matches!(at.act, SimAct::Fetch { .. })));
        // A viewer who leaves does not end his build, whose further duration is not known: that of all pages of a manifest,
        // and a fault lasts a minute at most.
        let pages = |document| match document {
            SimDocument::Canvas(_) => 1,
            SimDocument::Manifest(book) => model.library.leaves_of(book).count() as u64,
        };
        let hang_ms = if model.case.hangs() { 60_000 } else { 0 };
        let leavers = model.case.acts.iter().filter_map(|at| match at.act {
            SimAct::Fetch { document, viewers, patience } => {
                (patience < model.world().canvas_ms * pages(document) + hang_ms).then_some(viewers)
            }
            _ => None,
        });
        let leavers = leavers.sum::<usize>();
        // A request that hangs passes its permit on, four times over at most (on each node: the others do not know how long
        // it goes on).
        let hanging =
            if model.case.hangs() { model.world().concurrency * 4 * model.world().nodes } else { 0 };
        for [canvases, manifests] in building {
            let nodes = model.world().nodes;
            if canvases.most > (model.world().concurrency + leavers + hanging) * each + beside * nodes {
                model.breaks(format!("(3) {} canvases were built at once", canvases.most));
            }
            if manifests.most > (4 + beside + leavers + hanging) * nodes {
                model.breaks(format!("(3) {} manifests were built at once for viewers", manifests.most));
            }
        }
        if stray > 0 && mends == 0 {
            model.breaks(format!("(3) {stray} requests went to the other image route's server"));
        }
        // A stored canvas whose file is there shows it. (Except one that a viewer had built into a fault.)
        let is_gone = |leaf: usize| model.case.gone.iter().any(|gone| gone.leaf == leaf);
        let state = model.state();
        // Where `disallow` is ignored a visit into a fault of the file store stores the same empty canvas as a missing
        // file; the next viewer to open the canvas has it repaired (`documents_are_whole` checks that), but no viewer opens
        // that of a PDF by itself.
        let is_read = |leaf: usize| model.world().honours_disallow || model.library.leaves[leaf].pages == 0;
        let empty = state.documents.iter().find_map(|(place, leaves)| match place {
            StoredUnder::Canvas(leaf, query)
                if query.is_empty()
                    && leaves.is_empty()
                    && !is_gone(*leaf)
                    && is_read(*leaf)
                    && !state.not_repaired.contains(leaf) =>
            {
                (!state.by_viewers.contains(place)).then_some(*leaf)
            }
            _ => None,
        });
        drop(state);
        if let Some(leaf) = empty {
            model.breaks(format!("(2) canvas {leaf} is stored without its picture at the end"));
        }
    }
}
