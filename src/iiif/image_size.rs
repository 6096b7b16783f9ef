//! Size of the picture that an image request asks for (Image API 2.1 and 3.0, sections 4.1 to 4.3).

/// Width and height in pixels of what is asked for of an image with the size `full`. `None`: the region lies outside, or there
/// is nothing to see, which a server answers with an error.
///
/// The parameters must be well formed. Sizes above `full` are answered, with or without `^`.
pub(crate) fn output_size(full: (u32, u32), region: &str, size: &str, rotation: &str) -> Option<(u32, u32)> {
    let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8().ok();
    let (region, size, rotation) = (decoded(region)?, decoded(size)?, decoded(rotation)?);
    let (width, height) = scaled(cut(full, &region)?, size.trim_start_matches('^'))?;
    let is_turned = matches!(rotation.trim_start_matches('!'), "90" | "270");
    let (width, height) = if is_turned { (height, width) } else { (width, height) };
    let pixels = |side: f64| (0.5..f64::from(u32::MAX)).contains(&side).then(|| whole(side));
    Some((pixels(width)?, pixels(height)?))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the caller has looked at the range"
)]
fn whole(side: f64) -> u32 {
    side.round() as u32
}

/// Size of the region, as far as it lies within the image.
fn cut(full: (u32, u32), region: &str) -> Option<(f64, f64)> {
    let (width, height) = (f64::from(full.0), f64::from(full.1));
    match region {
        "full" => return Some((width, height)),
        "square" => return Some((width.min(height), width.min(height))),
        _ => {}
    }
    let (numbers, unit) = match region.strip_prefix("pct:") {
        Some(numbers) => (numbers, (width / 100.0, height / 100.0)),
        None => (region, (1.0, 1.0)),
    };
    let [x, y, w, h] =
        numbers.split(',').map(|number| number.parse().ok()).collect::<Option<Vec<f64>>>()?[..]
    else {
        return None;
    };
    let (w, h) = ((w * unit.0).min(width - x * unit.0), (h * unit.1).min(height - y * unit.1));
    (w > 0.0 && h > 0.0).then_some((w, h))
}

/// Size of a region after scaling.
fn scaled((width, height): (f64, f64), size: &str) -> Option<(f64, f64)> {
    if matches!(size, "full" | "max") {
        return Some((width, height));
    }
    if let Some(percent) = size.strip_prefix("pct:") {
        let factor = percent.parse::<f64>().ok()? / 100.0;
        return Some((width * factor, height * factor));
    }
    let (wide, high) = size.trim_start_matches('!').split_once(',')?;
    let (wide, high) = (wide.parse::<f64>().ok(), high.parse::<f64>().ok());
    // A side below one pixel becomes one pixel, as with long thin pictures.
    match (wide, high) {
        (Some(wide), Some(high)) if size.starts_with('!') => {
            let factor = (wide / width).min(high / height);
            Some(((width * factor).max(1.0), (height * factor).max(1.0)))
        }
        (Some(wide), Some(high)) => Some((wide, high)),
        (Some(wide), None) => Some((wide, (height * wide / width).max(1.0))),
        (None, Some(high)) => Some(((width * high / height).max(1.0), high)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::output_size;

    #[test]
    fn every_way_to_ask_for_a_size_is_answered_in_pixels() {
        for (region, size, rotation, expected) in [
            ("full", "full", "0", Some((2000, 3000))),
            ("full", "max", "0", Some((2000, 3000))),
            ("full", "^max", "0", Some((2000, 3000))),
            ("full", "200,", "0", Some((200, 300))),
            ("full", "^4000,", "0", Some((4000, 6000))),
            ("full", ",300", "90", Some((300, 200))),
            ("full", "!200,200", "!270", Some((200, 133))),
            ("full", "%21200%2C200", "0", Some((133, 200))),
            ("full", "40,50", "0", Some((40, 50))),
            ("full", "pct:12.5", "180", Some((250, 375))),
            ("square", "100,", "0", Some((100, 100))),
            ("0,0,512,512", "256,", "0", Some((256, 256))),
            ("1536,2560,1024,1024", "max", "0", Some((464, 440))),
            ("pct:50,50,50,50", "max", "22.5", Some((1000, 1500))),
            ("2000,0,10,10", "max", "0", None),
            ("pct:100,0,10,10", "max", "0", None),
            ("0,0,1,1000", "1,", "0", Some((1, 1000))),
            ("full", "1,", "0", Some((1, 2))),
            ("full", "!1,1", "0", Some((1, 1))),
            ("full", "pct:0.001", "0", None),
            ("full", "99999999999,", "0", None),
            ("full", "4294967295,1", "0", None),
        ] {
            assert_eq!(
                output_size((2000, 3000), region, size, rotation),
                expected,
                "{region}/{size}/{rotation}"
            );
        }
    }
}
