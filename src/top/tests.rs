use super::stats::TopHeal;
use super::*;

fn stats() -> TopStats {
    let points: Vec<_> =
        (0..40).map(|at| serde_json::json!({"at": at * 5000, "requests": 50, "healed": at % 7})).collect();
    serde_json::from_value(serde_json::json!({
        "version": "1.2.3",
        "uptime_seconds": 100_800,
        "requests": {"served": 1_234_567, "healed": 89},
        "canvas_requests": 42,
        "now": {"waiting": 3, "index_images": 2304},
        "points": points,
        "of_tomorrow": true,
    }))
    .expect("stats")
}

#[test]
fn one_look_says_how_things_stand() {
    let text = page(&stats(), "http://127.0.0.1:9090");
    for part in
        ["iiif-mender 1.2.3", "up 1 d 4 h", "requests 10.0/s", "1,234,567", "viewers waiting", "2,304"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= usize::from(PAGE.0)));
}

/// Builds a screen with everything it can hold, as long as it may be.
fn full() -> TopStats {
    let outcomes = ["served", "healed", "unknown", "missing", "cooling", "pending", "failed", "refused"];
    let heal = TopHeal {
        at: 1_700_000_000_000,
        identifier: "1c3f5ad0-9c1e-54bb-8b3e-8c7b2d2f0a11".to_owned(),
        verdict: "failed".to_owned(),
        duration_ms: 1234,
        reason: Some(
            "the canvas service answered 500 Internal Server Error (api.library.tamu.edu)".to_owned(),
        ),
        label: Some("Page 12".to_owned()),
        book: Some("Letters of a long name".to_owned()),
        ..TopHeal::default()
    };
    let healed = TopHeal {
        verdict: "healed".to_owned(),
        rung: Some("variant".to_owned()),
        reason: None,
        ..heal.clone()
    };
    TopStats {
        requests: outcomes.map(|outcome| (outcome.to_owned(), 1_234_567_890)).into(),
        canvas_requests: 12_345_678,
        heals: vec![heal, healed],
        ..stats()
    }
}

#[test]
fn eighty_columns_hold_every_word_and_the_last_heals_with_their_reasons() {
    let text = page(&full(), "http://127.0.0.1:9090");
    assert!(text.lines().all(|line| line.chars().count() <= 80) && PAGE.0 == 80, "{text}");
    for whole in [
        "canvas requests",
        "1,234,567,890",
        "viewers waiting",
        "heals under way",
        "breakers open",
        "to upstreams",
        "connections",
        "broken images",
        "in no manifest",
        "in a cluster",
        "manifests",
        "to be learned",
        "refused",
        "22:13:20  failed in 1234 ms  Page 12 in Letters of a long name",
        "500 Internal Server Error",
        "(api.library.tamu.edu)",
        "healed by variant",
    ] {
        assert!(text.contains(whole), "{whole} in\n{text}");
    }
}

#[test]
fn a_rate_is_what_came_in_the_last_minute() {
    assert!((stats().rate(|point| point.requests) - 10.0).abs() < 1e-9);
    assert!(TopStats::default().rate(|point| point.requests).abs() < 1e-9);
}
