//! Pages that look like pages: paper, a big number, lines like text, and a bar code from which a test reads the number.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageFormat};

use crate::geometry::Plan;

/// The page is painted once on this grid; every request is a nearest-neighbour view of it.
const GRID: (u32, u32) = (300, 400);
const PAPER: [u8; 3] = [244, 236, 216];
const INK: [u8; 3] = [52, 44, 38];
const FAINT: [u8; 3] = [176, 164, 146];
/// Cells of the bar code: a dark one, twelve bits, a light one, a dark one.
const CELLS: u32 = 15;
const BITS: u32 = 12;

/// 3 × 5 dots a digit, row by row.
const DIGITS: [u16; 10] = [
    0b111_101_101_101_111,
    0b010_110_010_010_111,
    0b111_001_111_100_111,
    0b111_001_111_001_111,
    0b101_101_111_001_001,
    0b111_100_111_001_111,
    0b111_100_111_101_111,
    0b111_001_010_010_010,
    0b111_101_111_101_111,
    0b111_101_111_001_111,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct View {
    number: u32,
    whole: (u32, u32),
    plan: Plan,
}

fn shelf() -> &'static Mutex<HashMap<View, Bytes>> {
    static SHELF: OnceLock<Mutex<HashMap<View, Bytes>>> = OnceLock::new();
    SHELF.get_or_init(Mutex::default)
}

/// The JPEG of a view that was painted before.
pub(crate) fn known(number: u32, whole: (u32, u32), plan: Plan) -> Option<Bytes> {
    shelf().lock().unwrap().get(&View { number, whole, plan }).cloned()
}

/// The JPEG of a view; painted once per process, so that the same request always has the same bytes.
pub(crate) fn jpeg(number: u32, whole: (u32, u32), plan: Plan) -> Bytes {
    let view = View { number, whole, plan };
    if let Some(known) = known(number, whole, plan) {
        return known;
    }
    let bytes = encode(&grid(number), whole, plan);
    shelf().lock().unwrap().entry(view).or_insert(bytes).clone()
}

/// The number painted on a page, read back from the bar code of a `full` region at any size from 100 pixels wide.
/// `None`: not a JPEG, or not one of these pages.
pub fn page_number(jpeg: &[u8]) -> Option<u32> {
    let picture = image::load_from_memory_with_format(jpeg, ImageFormat::Jpeg).ok()?.into_luma8();
    let (width, height) = picture.dimensions();
    let dark = |cell: u32| picture.get_pixel((2 * cell + 1) * width / (2 * CELLS), height / 40).0[0] < 128;
    if !dark(0) || dark(CELLS - 2) || !dark(CELLS - 1) {
        return None;
    }
    Some((0..BITS).map(|bit| u32::from(dark(bit + 1)) << bit).sum())
}

/// Width and height of a JPEG.
pub fn dimensions(jpeg: &[u8]) -> Option<(u32, u32)> {
    let picture = image::load_from_memory_with_format(jpeg, ImageFormat::Jpeg).ok()?;
    Some((picture.width(), picture.height()))
}

fn grid(number: u32) -> Vec<[u8; 3]> {
    let mut grid = vec![PAPER; (GRID.0 * GRID.1) as usize];
    let mut fill = |x: u32, y: u32, width: u32, height: u32, ink: [u8; 3]| {
        for row in y..(y + height).min(GRID.1) {
            let start = (row * GRID.0 + x.min(GRID.0)) as usize;
            let end = (row * GRID.0 + (x + width).min(GRID.0)) as usize;
            grid[start..end].fill(ink);
        }
    };
    let code = 1 | (number & 0xfff) << 1 | 1 << (CELLS - 1);
    for cell in (0..CELLS).filter(|cell| code >> cell & 1 == 1) {
        fill(cell * GRID.0 / CELLS, 0, GRID.0 / CELLS, 20, INK);
    }
    for line in 0..24 {
        // Line ends and gaps that differ from page to page.
        let seed = (number.wrapping_mul(31).wrapping_add(line)).wrapping_mul(2_654_435_761) >> 16;
        fill(30, 200 + line * 8, 110 + seed % 50, 3, FAINT);
        fill(150 + seed % 50, 200 + line * 8, 120 - seed % 50, 3, FAINT);
    }
    let digits = number.to_string();
    let dot = 20.min(GRID.0 / (4 * u32::try_from(digits.len()).unwrap_or(1)));
    let mut left = (GRID.0 - dot * (4 * u32::try_from(digits.len()).unwrap_or(1) - 1)) / 2;
    for digit in digits.bytes() {
        let dots = DIGITS[usize::from(digit - b'0')];
        for place in (0..15).filter(|place| dots >> (14 - place) & 1 == 1) {
            fill(left + place % 3 * dot, 60 + place / 3 * dot, dot, dot, INK);
        }
        left += 4 * dot;
    }
    grid
}

fn encode(grid: &[[u8; 3]], whole: (u32, u32), plan: Plan) -> Bytes {
    let at = |out: u32, of: u32, start: u32, length: u32, side: u32, cells: u32| {
        let pixel = u64::from(start) + u64::from(out) * u64::from(length) / u64::from(of);
        let cell = pixel * u64::from(cells) / u64::from(side);
        usize::try_from(cell.min(u64::from(cells) - 1)).unwrap_or(0)
    };
    let region = plan.region;
    let columns: Vec<_> =
        (0..plan.width).map(|x| at(x, plan.width, region.x, region.width, whole.0, GRID.0)).collect();
    let mut pixels = Vec::with_capacity((plan.width * plan.height * 3) as usize);
    for y in 0..plan.height {
        let start = at(y, plan.height, region.y, region.height, whole.1, GRID.1) * GRID.0 as usize;
        for column in &columns {
            pixels.extend_from_slice(&grid[start + column]);
        }
    }
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 60)
        .encode(&pixels, plan.width, plan.height, ExtendedColorType::Rgb8)
        .expect("a picture of a sane size");
    jpeg.into()
}
