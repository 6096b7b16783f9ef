//! What operators are shown of canvas services.

use crate::support::world::World;

#[tokio::test]
async fn whether_a_canvas_service_builds_beside_is_shown_on_the_page_in_the_api_and_in_the_scrape() {
    for (honours, word, text) in [
        (true, "honoured", "builds beside the stored canvas"),
        (false, "ignored", "the stored canvas itself is asked for"),
    ] {
        let world = World::with("heal.ahead = 0").await;
        if !honours {
            world.bed.service.ignores_disallow();
        }
        let admin = |path: &str| format!("http://{}{path}", world.app.admin.expect("an admin listener"));
        let shown = async || {
            let servers: serde_json::Value =
                serde_json::from_slice(&testbed::get(&admin("/api/v1/servers")).await.body).expect("JSON");
            servers["canvas_services"][0].clone()
        };
        assert_eq!(shown().await["variants"], "unknown");
        world.bed.expires_everything();
        assert_eq!(world.get(&world.bed.page().image_path("0,0,64,64/64,/0/default.jpg")).await.status, 200);
        world.settles().await;
        let service = shown().await;
        assert_eq!((&service["variants"], &service["breaker"]), (&word.into(), &"closed".into()));
        let page = testbed::get(&admin("/")).await.text();
        assert!(page.contains("Canvas services") && page.contains(text), "{page}");
        let upstream = service["upstream"].as_str().expect("text");
        for state in ["honoured", "ignored", "unknown"] {
            let series =
                format!(r#"iiif_mender_canvas_service_variants{{upstream="{upstream}",state="{state}"}}"#);
            assert_eq!(world.metric(&series), f64::from(u8::from(state == word)), "{series}");
        }
    }
}
