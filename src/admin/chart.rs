//! Charts as SVG: the server draws them, so that a page without scripts has them too.

use std::fmt::Write as _;

use crate::observe::{SAMPLE_EVERY, Sample};

/// Width, and the heights of the two charts, as in the templates.
const WIDTH: u32 = 720;
const TALL: f64 = 116.0;
const LOW: f64 = 76.0;

/// Points in one bar of heals.
const IN_A_BAR: usize = 5;

/// Points of the whole width: half an hour.
const POINTS: usize = 360;

/// The last half hour, drawn.
#[derive(Debug, Default)]
pub(super) struct Chart {
    /// Path of the area of requests.
    pub(super) area: String,
    /// Bars of heals, with failed ones on top.
    pub(super) bars: Vec<ChartBar>,
    pub(super) says_requests: String,
    pub(super) says_heals: String,
}

/// A rectangle of the chart.
#[derive(Debug, PartialEq)]
pub(super) struct ChartBar {
    pub(super) class: &'static str,
    pub(super) x: usize,
    pub(super) y: String,
    pub(super) height: String,
}

/// Draws these points, the newest at the right.
pub(super) fn draw(points: &[Sample]) -> Chart {
    let points = &points[points.len().saturating_sub(POINTS)..];
    let most = points.iter().map(|point| point.requests).max().unwrap_or(0);
    let sum = |of: fn(&Sample) -> u64| points.iter().map(of).sum::<u64>();
    let seconds = SAMPLE_EVERY.as_secs().max(1);
    let busiest = share(most, seconds);
    let says_requests = format!("{} requests, {busiest:.1} a second at most", sum(|point| point.requests));
    let says_heals =
        format!("{} healed, {} not healed", sum(|point| point.healed), sum(|point| point.broken));
    Chart { area: area(points, most), bars: bars(points), says_requests, says_heals }
}

fn area(points: &[Sample], most: u64) -> String {
    let step = WIDTH as usize / POINTS;
    let first = (POINTS - points.len()) * step;
    let mut path = format!("M{first} 120");
    for (at, point) in points.iter().enumerate() {
        let y = 120.0 - TALL * share(point.requests, most.max(1));
        let _ = write!(path, "L{} {y:.1}", first + at * step);
    }
    let last = first + points.len().saturating_sub(1) * step;
    let _ = write!(path, "L{last} 120Z");
    path
}

fn bars(points: &[Sample]) -> Vec<ChartBar> {
    // Grouped from the right, so that the newest bar is the one that grows.
    let sums: Vec<(u64, u64)> = points
        .rchunks(IN_A_BAR)
        .map(|few| (few.iter().map(|it| it.healed).sum(), few.iter().map(|it| it.broken).sum()))
        .collect();
    let most = sums.iter().map(|(healed, broken)| healed + broken).max().unwrap_or(0).max(1);
    let width = WIDTH as usize / (POINTS / IN_A_BAR);
    let mut bars = Vec::new();
    for (at, (healed, broken)) in sums.into_iter().enumerate() {
        let x = (WIDTH as usize).saturating_sub((at + 1) * width);
        let (good, bad) = (LOW * share(healed, most), LOW * share(broken, most));
        for (class, height, y) in [("healed", good, 80.0 - good), ("broken", bad, 80.0 - good - bad)] {
            if height > 0.0 {
                bars.push(ChartBar { class, x, y: format!("{y:.1}"), height: format!("{height:.1}") });
            }
        }
    }
    bars
}

#[expect(clippy::cast_precision_loss, reason = "a drawing")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stands_at_the_right_and_the_highest_fills_the_height() {
        let quiet = Sample { requests: 1, ..Sample::default() };
        let busy = Sample { requests: 10, healed: 3, broken: 1, ..Sample::default() };
        let chart = draw(&[quiet, busy]);
        assert_eq!(chart.area, "M716 120L716 108.4L718 4.0L718 120Z");
        let tops: Vec<_> = chart.bars.iter().map(|bar| (bar.class, bar.x, &*bar.y)).collect();
        assert_eq!(tops, [("healed", 710, "23.0"), ("broken", 710, "4.0")]);
        assert_eq!(chart.says_requests, "11 requests, 2.0 a second at most");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let chart = draw(&[]);
        assert_eq!((chart.bars.len(), &*chart.says_heals), (0, "0 healed, 0 not healed"));
    }
}
