//! One id leads from an answer to everything that is known of it: the log, the trace, the history, the dashboard.

use testbed::{Origin, Testbed};

use crate::support::program::{Serving, program};
use crate::support::world::{asks_until, folder_of, patiently};
use crate::traces::{named, spans};

const TILE: &str = "0,0,512,512/512,/0/default.jpg";

/// A folder with a configuration in front of these, and the manifests.
fn configured(bed: &Testbed, collector: &Origin) -> tempfile::TempDir {
    let folder = folder_of(bed);
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\npublic_hosts = [\"api.library.tamu.edu\"]\n\
         [admin]\nlisten = \"127.0.0.1:0\"\nsetup_check = \"0s\"\n[log]\nformat = \"json\"\naccess = \"all\"\n\
         [cache]\nmemory = 0\n[heal]\nladder = [\"visit\"]\nahead = 0\n[telemetry]\notlp = \"{}\"\nsample = 1\n\
         [[index.sources]]\npath = \"manifests\"\n{}",
        collector.url(),
        testbed::routes(&bed.images.origin(), &bed.service.origin())
    );
    std::fs::write(folder.path().join("config.toml"), text).expect("a file");
    folder
}

#[tokio::test]
async fn a_heal_is_followed_by_its_request_id_through_everything_that_tells_of_it() {
    let (bed, collector) = (Testbed::start().await, Origin::fixed(200, ""));
    let folder = configured(&bed, &collector);
    let serving = Serving::of(program(folder.path(), &["serve"]));
    let page = bed.page();
    let asked = format!("http://{}{}", serving.viewers, page.image_path(TILE));
    // Until its manifest is indexed, the image is nobody's.
    bed.expires_everything();
    let answer =
        asks_until("it is healed", async || testbed::get(&asked).await, |answer| answer.status == 200).await;
    let id = answer.header("x-request-id").to_owned();
    assert!(
        answer.header("heal-status").starts_with("healed; rung=visit"),
        "{}",
        answer.header("heal-status")
    );

    let ended = serving.says("heal ended");
    assert_eq!((&ended["request"], &ended["verdict"]), (&id.clone().into(), &"healed".into()));
    loop {
        let line = serving.says("request");
        if line["request"] == *id {
            assert_eq!(line["outcome"], "healed", "{line}");
            break;
        }
    }

    let of = |name: &str| {
        let all = spans(&collector);
        let ours = named(&all, name).into_iter().filter(|span| crate::traces::hex(&span.trace_id) == id);
        ours.count()
    };
    patiently("its spans came", || of("request") == 1 && of("heal") == 1 && of("visit") == 1).await;

    let admin = format!("http://{}", serving.admin);
    let history = format!("{admin}/api/v1/heals?request={id}");
    let heal = async || testbed::get(&history).await.json()["items"][0].clone();
    let heal = asks_until("it is in the history", heal, |heal| !heal.is_null()).await;
    assert_eq!((&heal["identifier"], &heal["verdict"]), (&page.identifier.clone().into(), &"healed".into()));

    let found = testbed::get(&format!("{admin}/heals?request={id}")).await.text();
    assert!(found.contains(&format!("/heals/{}", heal["id"])), "the list of the dashboard: {found}");
    let shown = testbed::get(&format!("{admin}/heals/{}", heal["id"])).await.text();
    assert!(shown.contains(&id) && shown.contains("visit"), "its own page: {shown}");
    an_act_is_in_the_log(&serving, &page.identifier).await;
}

/// What people do by hand is told with who did it, to what, and how it ended.
async fn an_act_is_in_the_log(serving: &Serving, identifier: &str) {
    let fields = [("content-type", "application/json"), ("x-request-id", "by-hand-1")];
    let body = serde_json::json!({ "identifier": identifier }).to_string();
    let act = format!("http://{}/api/v1/forget", serving.admin);
    let done = testbed::Client::default().send_body(http::Method::POST, &act, &fields, body.into()).await;
    assert_eq!(done.expect("an answer").header("x-request-id"), "by-hand-1");
    let line = serving.says("act of an operator");
    let told = ["act", "about", "request", "client"].map(|name| line[name].as_str().unwrap_or_default());
    assert_eq!(told, ["forget", identifier, "by-hand-1", "127.0.0.1"], "{line}");
    assert_eq!(line["result"], 200, "{line}");
}
