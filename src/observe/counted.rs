//! Numbers for people, alone and with their noun.

use indicatif::HumanCount;

/// `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    HumanCount(number).to_string()
}

/// `1 image`, `2 images`, `1,204 canvases`.
pub(crate) fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    let ending = match (count, noun.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {noun}{ending}", grouped(count))
}

#[cfg(test)]
mod tests {
    use super::{counted, grouped};

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 12_345_678].map(grouped), ["0", "999", "1,000", "12,345,678"]);
    }

    #[test]
    fn one_is_not_many() {
        let told = [counted(0, "image"), counted(1, "image"), counted(1204, "canvas"), counted(1, "canvas")];
        assert_eq!(told, ["0 images", "1 image", "1,204 canvases", "1 canvas"]);
    }
}
