//! Checks of `[heal]`: its settings must allow a heal.

use crate::config::report::Validator;
use crate::config::settings::{HealSettings, RouteKind, RouteSettings, Rung};

pub(super) fn healing(heal: &HealSettings, routes: &[RouteSettings], report: &mut Validator<'_>) {
    if heal.ladder.is_empty() {
        report.at(
            &["heal.ladder", "heal.enabled"],
            "healing is on, but its ladder has no rungs",
            "name at least one rung, such as ladder = [\"visit\"], or switch healing off with enabled = false",
        );
    }
    for (number, rung) in heal.ladder.iter().enumerate() {
        if heal.ladder.iter().take(number).any(|earlier| earlier == rung) {
            let path = format!("heal.ladder.{number}");
            report.at(&[&path], "this rung stands in the ladder twice", "take one of them out");
        }
    }
    if heal.statuses.is_empty() {
        report.at(
            &["heal.statuses", "heal.enabled"],
            "healing is on, but no status means \"expired\"",
            "write statuses = [404], or switch healing off with enabled = false",
        );
    }
    for (short, long, why, wrong) in [
        (
            "heal.wait",
            "heal.wait_info",
            "info.json is waited for at least as long as a tile",
            heal.wait > heal.wait_info,
        ),
        (
            "heal.wait_info",
            "heal.timeout",
            "nothing is left to wait for once the canvas request ended",
            heal.wait_info > heal.timeout,
        ),
    ] {
        if wrong {
            report.at(
                &[short, long],
                &format!("`{short}` is longer than `{long}`"),
                &format!("{why}: lower `{short}` or raise `{long}`"),
            );
        }
    }
    let kinds: Vec<String> = (0..routes.len()).map(|number| format!("routes.{number}.kind")).collect();
    let first_image = routes.iter().position(|route| route.kind == RouteKind::Image);
    let asks_canvases = heal.ladder.iter().any(|rung| *rung != Rung::Direct);
    let has_canvases = routes.iter().any(|route| route.kind == RouteKind::Presentation);
    if let Some(first) = first_image.filter(|_| asks_canvases && !has_canvases) {
        let mut paths: Vec<&str> =
            kinds.iter().skip(first).chain(kinds.iter().take(first)).map(String::as_str).collect();
        paths.extend(["heal.ladder", "heal.enabled"]);
        report.at(
            &paths,
            "images cannot be healed: no route leads to the canvas service",
            "add a route with kind = \"presentation\"; or keep to ladder = [\"direct\"]; or switch healing off with heal.enabled = false",
        );
    }
}
