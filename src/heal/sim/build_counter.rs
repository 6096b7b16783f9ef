//! Counter of builds at once, compared with their bounds by the simulation.

use super::model::Model;

/// Kind of a counted request; each has a limit of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum CountedRequest {
    /// Canvases of all, and the manifests that we ask for.
    Canvas,
    /// Manifests that viewers request.
    ViewersManifest,
}

/// `BuildCounter` counts builds at once.
pub(super) struct BuildCounter<'a>(&'a Model, usize, CountedRequest);

impl<'a> BuildCounter<'a> {
    pub(super) fn of(model: &'a Model, site: usize, what: CountedRequest) -> Self {
        model.state().building[site][what as usize].begins();
        Self(model, site, what)
    }
}

impl Drop for BuildCounter<'_> {
    fn drop(&mut self) {
        self.0.state().building[self.1][self.2 as usize].now -= 1;
    }
}
