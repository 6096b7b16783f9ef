//! Grey stripes of any size, as JPEG and PNG: the placeholder for an image whose file is gone.
//!
//! A picture is made of one value for each block of 8 × 8 pixels, so that it costs a fraction of the time of an encoder for
//! photographs: 4 megapixels are 40 KB and less than a millisecond. Pictures need not be kept.

use std::io::{self, Write as _};

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

/// Pixels of a picture at most.
pub(super) const MOST: u64 = 4 << 20;

/// Grey of the ground and of the stripes.
const GREYS: [u8; 2] = [224, 208];

/// True if this block of 8 × 8 pixels belongs to a stripe. Stripes meet where tiles meet, as their sides are multiples of
/// 32.
fn is_striped(across: u32, down: u32) -> bool {
    (across + down).is_multiple_of(4)
}

/// Picture of one channel (ITU-T T.81, baseline), whose blocks have no detail: a difference to the block before, and an
/// end.
pub(super) fn jpeg(width: u16, height: u16) -> Vec<u8> {
    // Start, JFIF, and a table that divides everything by 8: a value is then a grey less 128.
    let mut out = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xdb\0\x43\0".to_vec();
    out.extend([8; 64]);
    out.extend(b"\xff\xc0\0\x0b\x08");
    out.extend(height.to_be_bytes());
    out.extend(width.to_be_bytes());
    out.extend(b"\x01\x01\x11\0");
    // Huffman tables. DC differences: none is `0`, those of 5 bits begin with `10`, those of 7 with `110`. AC: only the end
    // of the block, `0`.
    out.extend([0xff, 0xc4, 0, 22, 0, 1, 1, 1].into_iter().chain([0; 13]).chain([0, 5, 7]));
    out.extend([0xff, 0xc4, 0, 20, 16, 1].into_iter().chain([0; 16]));
    out.extend(b"\xff\xda\0\x08\x01\x01\0\0\x3f\0");
    let mut bits = BitWriter { out, byte: 0, free: 8 };
    let mut before = None;
    for down in 0..u32::from(height).div_ceil(8) {
        for across in 0..u32::from(width).div_ceil(8) {
            let now = is_striped(across, down);
            match before {
                // The first block is a stripe: 208 less 128, then the end of the block.
                None => bits.write(0b110_1010_0000, 11),
                Some(before) if before == now => bits.write(0b00, 2),
                // 16 less.
                Some(_) if now => bits.write(0b1001_1110, 8),
                // 16 more.
                Some(_) => bits.write(0b1010_0000, 8),
            }
            before = Some(now);
        }
    }
    bits.end()
}

/// Bits of a JPEG, the highest first.
struct BitWriter {
    out: Vec<u8>,
    byte: u8,
    free: u32,
}

impl BitWriter {
    fn write(&mut self, value: u16, length: u32) {
        for at in (0..length).rev() {
            self.free -= 1;
            self.byte |= u8::from(value >> at & 1 == 1) << self.free;
            if self.free == 0 {
                self.out.push(self.byte);
                // 0xff would begin a marker: a zero byte follows it.
                if self.byte == 0xff {
                    self.out.push(0);
                }
                (self.byte, self.free) = (0, 8);
            }
        }
    }

    /// Fills the last byte with ones and writes the end of the picture.
    fn end(mut self) -> Vec<u8> {
        if self.free < 8 {
            self.write(0xff, self.free);
        }
        self.out.extend(b"\xff\xd9");
        self.out
    }
}

/// A picture of two colours, a bit for each pixel: eight pixels of a row are one byte.
pub(super) fn png(width: u16, height: u16) -> io::Result<Vec<u8>> {
    let columns = u32::from(width).div_ceil(8);
    let row = |down: u32| {
        let bytes = (0..columns).map(move |across| if is_striped(across, down) { 0xff } else { 0 });
        // Filter type 0 (none) stands before each row.
        [0].into_iter().chain(bytes).collect::<Vec<u8>>()
    };
    let rows: [Vec<u8>; 4] = [0, 1, 2, 3].map(row);
    let mut data = ZlibEncoder::new(Vec::new(), Compression::fast());
    for y in 0..usize::from(height) {
        data.write_all(&rows[y / 8 % 4])?;
    }
    let mut head = [u32::from(width).to_be_bytes(), u32::from(height).to_be_bytes()].concat();
    head.extend([1, 3, 0, 0, 0]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut out, *b"IHDR", &head);
    chunk(&mut out, *b"PLTE", &GREYS.map(|grey| [grey; 3]).concat());
    chunk(&mut out, *b"IDAT", &data.finish()?);
    chunk(&mut out, *b"IEND", &[]);
    Ok(out)
}

fn chunk(out: &mut Vec<u8>, name: [u8; 4], data: &[u8]) {
    let mut sum = Crc::new();
    sum.update(&name);
    sum.update(data);
    out.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
    out.extend(name);
    out.extend(data);
    out.extend(sum.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::{GREYS, is_striped, jpeg, png};

    #[test]
    fn both_kinds_are_the_same_picture_of_any_size() {
        for (width, height) in
            [(1, 1), (8, 8), (9, 7), (64, 48), (333, 1), (1, 333), (512, 512), (2048, 2048), (65_535, 64)]
        {
            let [one, other] = [jpeg(width, height), png(width, height).expect("memory")];
            assert!(
                one.len() < 64 << 10 && other.len() < 16 << 10,
                "{width}x{height}: {} {}",
                one.len(),
                other.len()
            );
            for picture in [one, other] {
                let picture = image::load_from_memory(&picture).expect("a picture").to_luma8();
                assert_eq!((picture.width(), picture.height()), (width.into(), height.into()));
                for (x, y, grey) in picture.enumerate_pixels() {
                    let expected = GREYS[usize::from(is_striped(x / 8, y / 8))];
                    assert!(grey.0[0].abs_diff(expected) <= 1, "{width}x{height} at {x},{y}: {}", grey.0[0]);
                }
            }
        }
    }
}
