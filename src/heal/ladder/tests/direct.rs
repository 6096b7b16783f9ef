//! Tests of `direct`: the file itself, requested in the name of the identifier.

use super::super::direct::DirectResult;
use super::*;
use crate::iiif::identifier::base64_of_file_url;

/// A file whose base64 holds a slash.
const SLASH: &str = "https://lib.example/fcrepo/rest/obj/a/files/???.jpg";

impl Scene {
    async fn direct(&self) -> DirectResult {
        self.ladder.direct(&self.image, &tile(&self.image.sent), &Caller::default()).await
    }

    fn forwards(&self, status: u16) {
        *self.images.forward.lock() = status;
    }

    /// Requests forwarded since the last call.
    fn forwarded(&self) -> Vec<Parts> {
        std::mem::take(&mut *self.images.forwarded.lock())
    }
}

#[tokio::test(start_paused = true)]
async fn the_file_is_asked_for_in_the_name_of_the_identifier() {
    let scene = Scene::new().with_file();
    scene.forwards(200);
    assert!(matches!(scene.direct().await, DirectResult::Answer(_)));
    let head = scene.forwarded().pop().expect("it was asked for");
    assert_eq!(head.uri.path(), format!("/iiif/2/{}/full/200,/0/default.jpg", base64_of_file_url(FILE)));
    assert_eq!(head.headers.get("x-forwarded-id").expect("its name"), &*scene.image.sent);
}

#[tokio::test(start_paused = true)]
async fn a_page_of_a_pdf_is_a_page_of_its_file() {
    let mut scene = Scene::new().with_file();
    let id = format!("{};3", scene.image.sent);
    scene.image.kind = Identifier::new(&id).kind();
    scene.image.sent = id.as_str().into();
    scene.forwards(200);
    assert!(matches!(scene.direct().await, DirectResult::Answer(_)));
    let head = scene.forwarded().pop().expect("it was asked for");
    assert!(head.uri.path().starts_with(&format!("/iiif/2/{};3/", base64_of_file_url(FILE))), "{}", head.uri);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_where_the_file_is_not_known_or_direct_is_no_rung() {
    for scene in [Scene::new(), Scene::with("ladder = [\"variant\"]").with_file()] {
        scene.forwards(200);
        assert!(matches!(scene.direct().await, DirectResult::NoWay));
        assert!(scene.forwarded().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_live_image_says_goes_out_and_trouble_does_not() {
    for (status, goes_out) in [(200, true), (302, true), (400, true), (415, true), (403, false), (503, false)]
    {
        let scene = Scene::new().with_file();
        scene.forwards(status);
        assert_eq!(matches!(scene.direct().await, DirectResult::Answer(_)), goes_out, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_is_gone_where_such_identifiers_are_answered_and_its_small_tile_is_404() {
    let scene = Scene::new().with_file();
    let id = base64_of_file_url(FILE);
    scene.forwards(404);
    assert!(matches!(scene.direct().await, DirectResult::NoWay), "never seen to work");
    scene.forwards(200);
    scene.direct().await;
    scene.forwards(404);
    assert!(matches!(scene.direct().await, DirectResult::FileIsGone));
    for status in [200, 503, 0] {
        scene.images.set(&id, SMALL_TILE, status);
        assert!(matches!(scene.direct().await, DirectResult::NoWay), "only this request is 404: {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_refuses_an_encoded_slash_is_left_alone_for_a_while() {
    let scene = Scene::with("resources_recheck = \"60s\"");
    let uuid = uuid_of_file_url(SLASH);
    scene.index.learn_file_url(uuid, SLASH).expect("it is true");
    assert!(base64_of_file_url(SLASH).contains("%2F"));
    let image = IndexedImage {
        sent: uuid.to_string().as_str().into(),
        kind: Identifier::new(&uuid.to_string()).kind(),
        ..scene.image.clone()
    };
    let scene = Scene { image, ..scene };
    for status in [400, 404] {
        scene.forwards(status);
        assert!(matches!(scene.direct().await, DirectResult::NoWay), "{status}");
        assert_eq!(scene.forwarded().len(), 1, "{status}");
        assert!(matches!(scene.direct().await, DirectResult::NoWay), "{status}");
        assert!(scene.forwarded().is_empty(), "{status}");
        let plain = Scene::new().image;
        scene.index.learn_file_url(uuid_of_file_url(FILE), FILE).expect("it is true");
        let answer = scene.ladder.direct(&plain, &tile(&plain.sent), &Caller::default()).await;
        assert_eq!(scene.forwarded().len(), 1, "without a slash it is asked for: {answer:?}");
        tokio::time::advance(Duration::from_mins(1)).await;
    }
    scene.forwards(200);
    assert!(matches!(scene.direct().await, DirectResult::Answer(_)));
    // `direct` was seen to work, so the status is about the request.
    scene.forwards(400);
    assert!(matches!(scene.direct().await, DirectResult::Answer(_)));
    // No gateway refuses an identifier without a slash: a 400 is the answer of a live image.
    let scene = Scene::new().with_file();
    scene.forwards(400);
    for _ in 0..2 {
        assert!(matches!(scene.direct().await, DirectResult::Answer(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_at_the_file_tells_what_is_known_of_it() {
    let id = base64_of_file_url(FILE);
    assert_eq!(Scene::new().ladder.look_at_file(&Scene::new().image).await, None);
    let scene = Scene::new().with_file();
    for (status, told) in [
        (404, None),
        (0, None),
        (401, None),
        (503, Some(false)),
        (200, Some(false)),
        (404, Some(true)),
        (410, Some(true)),
    ] {
        scene.images.set(&id, SMALL_TILE, status);
        assert_eq!(scene.ladder.look_at_file(&scene.image).await, told, "{status}");
    }
}
