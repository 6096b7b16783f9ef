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

#[test]
fn a_rate_is_what_came_in_the_last_minute() {
    assert!((stats().rate(|point| point.requests) - 10.0).abs() < 1e-9);
    assert!(TopStats::default().rate(|point| point.requests).abs() < 1e-9);
}
