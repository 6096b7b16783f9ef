//! Who may read the admin pages and who may act on them: names, tokens, certificates, other sites.

use serde_json::Value;
use testbed::Testbed;

use crate::admin::{JSON, does, url};
use crate::support::world::{World, checked};

#[tokio::test]
async fn other_sites_and_plain_forms_cannot_act() {
    let world = World::start().await;
    let own = format!("http://{}", world.app.admin.expect("an admin listener"));
    for (fields, status) in [
        (vec![], 415),
        (vec![("content-type", "text/plain")], 415),
        (vec![JSON, ("origin", "https://evil.example")], 403),
        (vec![JSON, ("origin", "null")], 403),
        (vec![("origin", &*own)], 200),
        (vec![JSON, ("origin", &own)], 200),
    ] {
        assert_eq!(does(&world, "breakers/reset", &fields, &Value::Null).await.status, status, "{fields:?}");
    }
}

#[tokio::test]
async fn without_a_token_only_local_names_are_answered() {
    let world = World::start().await;
    for (host, status) in
        [("evil.example:9090", 421), ("localhost", 200), ("127.0.0.1", 200), ("[::1]:9090", 200)]
    {
        let answer =
            world.client.get(&url(&world, "/api/v1/stats"), &[("host", host)]).await.expect("an answer");
        assert_eq!(answer.status, status, "{host}");
    }
    assert_eq!(
        world.client.get(&url(&world, "/livez"), &[("host", "probe")]).await.expect("an answer").status,
        200
    );
}

#[tokio::test]
async fn with_a_token_everything_but_the_probes_asks_for_it() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("token");
    std::fs::write(&file, "a-token-that-is-long\n").expect("a file");
    let world = World::with(&format!("admin.token_file = {}", file.display())).await;
    let status = async |path: &str, shown: &str| {
        let fields = [("authorization", shown), ("host", "mender.example")];
        let fields = if shown.is_empty() { &fields[1..] } else { &fields[..] };
        world.client.get(&url(&world, path), fields).await.expect("an answer").status
    };
    for path in ["/metrics", "/api/v1/stats", "/api/v1/broken", "/broken", "/api/v1/nothing"] {
        assert_eq!(status(path, "").await, 401, "{path}");
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(status(path, "").await, 200, "{path}");
    }
    assert_eq!(status("/api/v1/stats", "Bearer a-token-that-is-long").await, 200);
    // user:a-token-that-is-long
    assert_eq!(status("/api/v1/stats", "Basic dXNlcjphLXRva2VuLXRoYXQtaXMtbG9uZw==").await, 200);
}

#[tokio::test]
async fn who_guesses_tokens_is_not_listened_to_and_others_are() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("token");
    std::fs::write(&file, "a-token-that-is-long\n").expect("a file");
    let text = format!("admin.token_file = {}\nserver.trusted_proxies = [\"127.0.0.1\"]", file.display());
    let world = World::with(&text).await;
    let ask = async |from: &str, shown: &str| {
        let fields = [("authorization", shown), ("x-forwarded-for", from)];
        world.client.get(&url(&world, "/api/v1/stats"), &fields).await.expect("an answer")
    };
    let (right, wrong) = ("Bearer a-token-that-is-long", "Bearer a-token-that-is-wrong");
    let mut seen = Vec::new();
    for at in 0..40 {
        seen.push(ask(&format!("2001:db8::{at:x}"), wrong).await.status);
    }
    assert!(seen[0] == 401 && seen[39] == 429, "{seen:?}");
    let held = ask("2001:db8::ffff", right).await;
    assert_eq!(held.status, 429, "a right guess tells nothing");
    let after: u64 = held.header("retry-after").parse().expect("a time");
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(ask("2001:db8:0:1::1", right).await.status, 200, "others are not concerned");
    assert_eq!(ask("192.0.2.1", right).await.status, 200, "others are not concerned");
    assert_eq!(world.client.get(&url(&world, "/readyz"), &[]).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_weak_token_opens_nothing_and_it_does_not_start_in_public_without_one() {
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::write(folder.path().join("token"), "short").expect("a file");
    let bed = Testbed::start().await;
    let more = "admin.token_file = token";
    let settings =
        crate::support::world::settings(folder.path(), &bed.images.origin(), &bed.service.origin(), more);
    let app = iiif_mender::app::App::start(settings).await.expect("viewers are served");
    let stats = format!("http://{}/api/v1/stats", app.admin.expect("the admin pages"));
    assert_eq!(testbed::get_with(&stats, &[("authorization", "Bearer short")]).await.status, 401);
    let why = app.metrics.edge.degraded.parts()["admin_token"].why.clone();
    assert!(why.contains("16 visible characters"), "{why}");
    app.stop().await;
    let text =
        "[admin]\nlisten = \"0.0.0.0:0\"\n[[routes]]\nprefix = \"/\"\nupstream = \"http://a.example/\"\n";
    let config = folder.path().join("config.toml");
    let none: [(String, String); 0] = [];
    let errors = iiif_mender::config::Settings::from_text(&config, text, none).expect_err("nobody is asked");
    assert!(format!("{errors:#}").contains("token_file"), "{errors:#}");
    let asked = text.replace("[[routes]]", "token_file = \"token\"\n[[routes]]");
    assert!(checked(folder.path(), &asked, "").admin.token_file.is_some());
}
