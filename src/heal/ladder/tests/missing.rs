//! Tests of missing images: what is remembered of files that are gone.

use super::*;
use crate::heal::image::RoutedImage;
use crate::heal::missing_files::Proof;
use crate::iiif::ImageRequest;

#[tokio::test(start_paused = true)]
async fn a_missing_file_is_known_until_the_image_is_found() {
    let scene = Scene::new();
    let (missing, image) = (&scene.missing, &scene.image);
    assert!(!missing.is_known_to_all(image).await && !missing.is_remembered(image));
    assert!(!missing.found(image), "nobody missed it");
    missing.note(image, Proof::Shown);
    for _ in 0..2 {
        assert!(missing.is_known_to_all(image).await && missing.is_remembered(image));
    }
    tokio::time::advance(Duration::from_mins(1)).await;
    assert!(!missing.is_known(image) && missing.is_remembered(image), "believed no more, and remembered");
    assert!(missing.found(image) && !missing.is_remembered(image));
    missing.note(image, Proof::Shown);
    missing.forget(image, [1, image.mark].into_iter());
    assert!(!missing.is_remembered(image));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_for_a_missing_image_by_its_key_and_route() {
    let scene = Scene::new();
    let path = format!("{}/full/200,/0/default.jpg", scene.image.sent);
    let request = ImageRequest::parse(&path).expect("a tile");
    let image = RoutedImage { route: scene.image.route, request, trace: &scene.image.trace };
    assert!(!scene.missing.remembers(&image, scene.image.mark));
    scene.missing.note(&scene.image, Proof::Shown);
    assert!(scene.missing.remembers(&image, scene.image.mark));
    assert!(!scene.missing.remembers(&image, scene.image.mark + 1));
}
