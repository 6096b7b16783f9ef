//! Tells thumbnails from images that a reader has opened.

use crate::heal::Priority;
use crate::iiif::Target;

/// Thumbnails of a whole book come at once: they are healed after the page that a viewer shows.
pub(super) fn priority_of(target: Target<'_>) -> Priority {
    match target {
        Target::Image { region: "full", size, .. } if is_thumbnail(size) => Priority::Prefetch,
        _ => Priority::Viewer,
    }
}

/// No side longer than this is a thumbnail.
const THUMBNAIL: u32 = 320;

fn is_thumbnail(size: &str) -> bool {
    let mut sides = size.trim_start_matches(['!', '^']).split([',', ':']);
    let mut any = false;
    let small = sides.all(|side| {
        any |= !side.is_empty();
        side.is_empty() || side.parse::<u32>().is_ok_and(|pixels| pixels <= THUMBNAIL)
    });
    any && small
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_whole_images_are_thumbnails_and_tiles_are_not() {
        for size in ["100,", ",200", "!300,300", "320,320", "^!90,90"] {
            assert!(is_thumbnail(size), "{size}");
        }
        for size in ["full", "max", "1024,", "!300,900", "pct:10", ","] {
            assert!(!is_thumbnail(size), "{size}");
        }
    }
}
