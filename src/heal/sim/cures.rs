//! Cases that the simulation found, in which a canvas is cured in the background: no viewer opens it.

use super::case::{Case, ImageWant, SimAct, SimFault, TimedAct, TimedFault};
use super::run::play;
use super::world::SimWorld;

#[test]
fn a_canvas_that_the_first_variant_built_over_is_cured() {
    let world = SimWorld { honours_disallow: false, ..SimWorld::plain() };
    let fault = TimedFault { fault: SimFault::Nested, from: 8_270, to: 68_270 };
    let info = SimAct::Ask { image: 14, want: ImageWant::Info, readers: 1, patience: 200_000, cookie: true };
    let acts = vec![TimedAct { ms: 7_877, act: SimAct::Flush }, TimedAct { ms: 11_307, act: info }];
    let case = Case { world, stored: 0, troubles: vec![fault], gone: Vec::new(), acts, last: Vec::new() };
    let (broken, log) = play(&case, true);
    let log = log.join("\n");
    assert!(broken.is_empty(), "{log}\n{}", broken.join("\n"));
    // At the end of a case a viewer opens each document without its pictures, which would cure it, too.
    assert!(!log.contains("is opened, which is stored"), "{log}");
}
