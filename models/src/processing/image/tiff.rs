//! TIFF as Pillow reads it: its table of modes (`OPEN_INFO` of `TiffImagePlugin.py` in Pillow 13.0), then
//! `convert("RGB")`. The `tiff` crate gives samples as they are stored, libjpeg's port those of JPEG.

use std::io::Cursor;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, RgbImage};
use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{TiffError, TiffFormatError};

use super::decode::check_size;
use super::{ImageError, jpeg};

const PHOTOMETRIC: u16 = 262;
const WHITE_IS_ZERO: u16 = 0;
const BLACK_IS_ZERO: u16 = 1;
const RGB: u16 = 2;
const PALETTE: u16 = 3;
const CMYK: u16 = 5;
const YCBCR: u16 = 6;
const CIELAB: u16 = 8;

const JPEG: u16 = 7;

/// What a file says of its pixels.
struct Layout {
    width: u32,
    height: u32,
    photometric: u16,
    /// The type of a sample: 1 without a sign, 2 with one, 3 a float.
    format: u16,
    bits: u16,
    samples: usize,
    /// The kind of the first sample that is no colour, 1 for alpha that is multiplied in.
    extra: Option<u16>,
}

pub(super) fn decode(bytes: &[u8]) -> Result<DynamicImage, ImageError> {
    // Under this photometric interpretation the decoder gives samples as they are.
    let mut stored = bytes.to_vec();
    let photometric = replace_photometric(&mut stored)
        .ok_or_else(|| malformed("it has no photometric interpretation"))?;
    let mut decoder = Decoder::new(Cursor::new(&stored)).map_err(refusal)?;
    let (width, height) = decoder.dimensions().map_err(refusal)?;
    check_size(width, height, bytes.len())?;
    let mut limits = Limits::default();
    // Eight samples of eight bytes a pixel; as much again for what is compressed.
    let most = (u64::from(width) * u64::from(height) * 64).max(1 << 20) as usize;
    limits.decoding_buffer_size = most;
    limits.intermediate_buffer_size = most.max(bytes.len());
    let mut decoder = decoder.with_limits(limits);
    let mut list = |tag| -> Result<Vec<u16>, ImageError> {
        let found = decoder.find_tag_unsigned_vec::<u16>(tag).map_err(refusal)?;
        Ok(found.unwrap_or_default())
    };
    let (bits, formats) = (list(Tag::BitsPerSample)?, list(Tag::SampleFormat)?);
    let samples = list(Tag::SamplesPerPixel)?.first().copied().unwrap_or(1);
    let extra = list(Tag::ExtraSamples)?.first().copied();
    let compression = list(Tag::Compression)?.first().copied().unwrap_or(1);
    let planar = list(Tag::PlanarConfiguration)?.first() == Some(&2);
    let orientation = list(Tag::Orientation)?.first().copied();
    let colors = list(Tag::ColorMap)?;
    let same = |values: &[u16]| values.iter().all(|value| *value == values[0]);
    if !same(&bits) || !same(&formats) {
        return Err(unsupported(format!(
            "samples of different types, {bits:?} bits"
        )));
    }
    let layout = Layout {
        width,
        height,
        photometric,
        format: formats.first().copied().unwrap_or(1),
        bits: bits.first().copied().unwrap_or(1),
        samples: usize::from(samples),
        extra,
    };
    let pixels = if compression == JPEG {
        from_jpeg(&mut decoder, bytes, &layout)?
    } else {
        layout.check()?;
        let rows = samples_of(&mut decoder, &layout, planar)?;
        layout.rgb(&rows, &colors)?
    };
    let picture = RgbImage::from_raw(width, height, pixels);
    let mut picture: DynamicImage = picture
        .ok_or_else(|| malformed("its pixels are fewer than its size says"))?
        .into();
    let orientation = orientation.and_then(|value| Orientation::from_exif(value as u8));
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(picture)
}

/// Has the first page's samples be grey of any number, and gives what they are.
fn replace_photometric(bytes: &mut [u8]) -> Option<u16> {
    let little = match bytes.get(..2)? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let number = |bytes: &[u8]| {
        let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        match little {
            true => bytes.iter().rev().fold(0, fold),
            false => bytes.iter().fold(0, fold),
        }
    };
    let field = |bytes: &[u8], at: u64, size: u64| {
        let at = usize::try_from(at).ok()?;
        Some(number(bytes.get(at..at.checked_add(size as usize)?)?))
    };
    let big = field(bytes, 2, 2)? == 43;
    // Where the offset of the first page lies, and the sizes of offsets, counts and entries.
    let (place, word, count, entry) = if big { (8, 8, 8, 20) } else { (4, 4, 2, 12) };
    let page = field(bytes, place, word)?;
    let entries = field(bytes, page, count)?.min(u64::from(u16::MAX));
    for index in 0..entries {
        let at = page.checked_add(count + index * entry)?;
        if field(bytes, at, 2)? != u64::from(PHOTOMETRIC) {
            continue;
        }
        let value = usize::try_from(at.checked_add(4 + word)?).ok()?;
        let short = bytes.get_mut(value..value.checked_add(2)?)?;
        let found = number(short) as u16;
        short.copy_from_slice(&match little {
            true => BLACK_IS_ZERO.to_le_bytes(),
            false => BLACK_IS_ZERO.to_be_bytes(),
        });
        return Some(found);
    }
    None
}

/// All samples in the order of pixels, in rows of whole bytes where a sample is less.
fn samples_of(
    decoder: &mut Decoder<Cursor<&Vec<u8>>>,
    layout: &Layout,
    planar: bool,
) -> Result<DecodingResult, ImageError> {
    let mut result = DecodingResult::U8(Vec::new());
    let read = decoder.read_image_to_buffer(&mut result).map_err(refusal)?;
    let Some(stride) = read.plane_stride.filter(|_| planar && layout.samples > 1) else {
        return Ok(result);
    };
    if layout.bits < 8 {
        return Err(unsupported(format!("planes of {} bits", layout.bits)));
    }
    let stride = stride.get() / (usize::from(layout.bits) / 8);
    fn interleave<T: Copy>(values: &[T], stride: usize, samples: usize) -> Option<Vec<T>> {
        if values.len() < stride.checked_mul(samples)? {
            return None;
        }
        let pixel = |pixel: usize| (0..samples).map(move |plane| values[plane * stride + pixel]);
        Some((0..stride).flat_map(pixel).collect())
    }
    let samples = layout.samples;
    let woven = match &result {
        DecodingResult::U8(values) => interleave(values, stride, samples).map(DecodingResult::U8),
        DecodingResult::U16(values) => interleave(values, stride, samples).map(DecodingResult::U16),
        DecodingResult::F32(values) => interleave(values, stride, samples).map(DecodingResult::F32),
        _ => return Err(unsupported(format!("planes of {} bits", layout.bits))),
    };
    woven.ok_or_else(|| malformed("its planes are fewer than its samples"))
}

impl Layout {
    /// Refuses what Pillow does not read.
    fn check(&self) -> Result<(), ImageError> {
        let (bits, samples) = (self.bits, self.samples);
        let known = match (self.photometric, self.format, samples) {
            (WHITE_IS_ZERO, 1, 1) => matches!(bits, 1 | 2 | 4 | 8 | 16),
            (BLACK_IS_ZERO, 1, 1) => matches!(bits, 1 | 2 | 4 | 8 | 16 | 32),
            (BLACK_IS_ZERO, 2, 1) => matches!(bits, 8 | 16 | 32),
            (WHITE_IS_ZERO | BLACK_IS_ZERO, 3, 1) => bits == 32,
            (BLACK_IS_ZERO, 1, 2) => bits == 8,
            (RGB, 1, 3..=6) => bits == 8 || (bits == 16 && samples < 5),
            (PALETTE, 1, 1) => matches!(bits, 1 | 2 | 4 | 8),
            (PALETTE, 1, 2) => bits == 8,
            (CMYK, 1, 4..=6) => bits == 8 || (bits == 16 && samples == 4),
            (CIELAB, 1, 3) => bits == 8,
            _ => false,
        };
        if known {
            return Ok(());
        }
        let photometric = match self.photometric {
            WHITE_IS_ZERO | BLACK_IS_ZERO => "grey",
            RGB => "RGB",
            PALETTE => "palette",
            CMYK => "CMYK",
            YCBCR => "YCbCr",
            CIELAB => "CIELab",
            _ => "unknown",
        };
        let format = match self.format {
            1 => "unsigned",
            2 => "signed",
            3 => "float",
            _ => "untyped",
        };
        Err(unsupported(format!(
            "{photometric} pixels (photometric interpretation {}) of {samples} {format} samples of {bits} bits",
            self.photometric
        )))
    }

    fn rgb(&self, read: &DecodingResult, colors: &[u16]) -> Result<Vec<u8>, ImageError> {
        let pixels = self.width as usize * self.height as usize;
        let grey = |values: &mut dyn Iterator<Item = u8>| -> Vec<u8> {
            values.flat_map(|value| [value; 3]).collect()
        };
        let clip = |value: f64| value.clamp(0.0, 255.0) as u8;
        let bytes = match read {
            DecodingResult::U8(values) if self.bits < 8 => self.unpacked(values),
            DecodingResult::U8(values) => values.clone(),
            // Pillow takes a byte with a sign for one without.
            DecodingResult::I8(values) => values.iter().map(|value| *value as u8).collect(),
            // Grey of 16 bits and more is clipped, and not inverted either; colours keep their high byte.
            DecodingResult::U16(values) if self.samples == 1 => {
                return Ok(grey(
                    &mut values.iter().map(|value| (*value).min(255) as u8),
                ));
            }
            DecodingResult::U16(values) => values.iter().map(|value| (value >> 8) as u8).collect(),
            DecodingResult::I16(values) => {
                return Ok(grey(&mut values.iter().map(|value| clip((*value).into()))));
            }
            // Mode `I` has a sign.
            DecodingResult::U32(values) => {
                return Ok(grey(
                    &mut values.iter().map(|value| clip(f64::from(*value as i32))),
                ));
            }
            DecodingResult::I32(values) => {
                return Ok(grey(&mut values.iter().map(|value| clip((*value).into()))));
            }
            DecodingResult::F32(values) => {
                return Ok(grey(&mut values.iter().map(|value| clip((*value).into()))));
            }
            _ => return Err(unsupported(format!("samples of {} bits", self.bits))),
        };
        if bytes.len() < pixels * self.samples {
            return Err(malformed("its pixels are fewer than its size says"));
        }
        let each = bytes.chunks_exact(self.samples);
        let premultiplied = self.extra == Some(1);
        let plain = |color: u8, alpha: u8| match alpha {
            _ if !premultiplied => color,
            0 => 0,
            alpha => (u32::from(color) * 255 / u32::from(alpha)).min(255) as u8,
        };
        Ok(match self.photometric {
            PALETTE => {
                let size = 1 << self.bits.min(8);
                if colors.len() < 3 * size {
                    return Err(malformed(
                        "its palette has fewer colours than its bits tell apart",
                    ));
                }
                let color = |index: u8| {
                    [0, 1, 2]
                        .map(|channel| (colors[channel * size + usize::from(index)] >> 8) as u8)
                };
                each.flat_map(|pixel| color(pixel[0])).collect()
            }
            RGB => {
                let alpha = |pixel: &[u8]| pixel.get(3).copied().unwrap_or(255);
                each.flat_map(|pixel| [0, 1, 2].map(|channel| plain(pixel[channel], alpha(pixel))))
                    .collect()
            }
            CMYK => each.flat_map(jpeg::rgb_of_cmyk).collect(),
            CIELAB => each.flat_map(rgb_of_lab).collect(),
            _ => {
                let unit = match self.bits {
                    1 => 255,
                    2 => 85,
                    4 => 17,
                    _ => 1,
                };
                let inverted = self.photometric == WHITE_IS_ZERO;
                let shade = |pixel: &[u8]| {
                    let value = plain(pixel[0], pixel.get(1).copied().unwrap_or(255)) * unit;
                    if inverted { 255 - value } else { value }
                };
                grey(&mut each.map(shade))
            }
        })
    }

    /// The samples of less than a byte, a byte each; rows begin with a byte.
    fn unpacked(&self, packed: &[u8]) -> Vec<u8> {
        let (bits, width) = (usize::from(self.bits), self.width as usize);
        let rows = packed.chunks_exact((width * bits).div_ceil(8).max(1));
        let mask = (1_u8 << bits) - 1;
        let row = |row: &[u8]| -> Vec<u8> {
            let sample = |index: usize| {
                let bit = index * bits;
                row[bit / 8] >> (8 - bits - bit % 8) & mask
            };
            (0..width).map(sample).collect()
        };
        rows.flat_map(row).collect()
    }
}

/// Strips or tiles that are JPEG files but for their tables, which are the file's.
fn from_jpeg(
    decoder: &mut Decoder<Cursor<&Vec<u8>>>,
    bytes: &[u8],
    layout: &Layout,
) -> Result<Vec<u8>, ImageError> {
    let colors = match (layout.photometric, layout.samples, layout.bits) {
        (BLACK_IS_ZERO, 1, 8) => jpeg::Colors::Grey,
        (RGB, 3, 8) => jpeg::Colors::Rgb,
        (YCBCR, 3, 8) => jpeg::Colors::YCbCr,
        _ => {
            return Err(unsupported(format!(
                "JPEG compression with photometric interpretation {} and {} samples of {} bits",
                layout.photometric, layout.samples, layout.bits
            )));
        }
    };
    let tables = match decoder.find_tag(Tag::JPEGTables).map_err(refusal)? {
        Some(tables) => tables.into_u8_vec().map_err(refusal)?,
        None => Vec::new(),
    };
    let tiled = decoder.get_chunk_type() == ChunkType::Tile;
    let (offsets, lengths) = match tiled {
        true => (Tag::TileOffsets, Tag::TileByteCounts),
        false => (Tag::StripOffsets, Tag::StripByteCounts),
    };
    let mut list = |tag| decoder.get_tag_u64_vec(tag).map_err(refusal);
    let (offsets, lengths) = (list(offsets)?, list(lengths)?);
    let (chunk_width, chunk_height) = decoder.chunk_dimensions();
    let (width, height) = (layout.width as usize, layout.height as usize);
    let (chunk_width, chunk_height) = (chunk_width as usize, chunk_height as usize);
    if chunk_width == 0 || chunk_height == 0 {
        return Err(malformed("its tiles have no size"));
    }
    let across = width.div_ceil(chunk_width);
    let chunks = across * height.div_ceil(chunk_height);
    if offsets.len() < chunks || lengths.len() < chunks {
        return Err(malformed(
            "it has fewer strips or tiles than its size asks for",
        ));
    }
    if offsets.len() > chunks {
        return Err(unsupported("JPEG compression of planes"));
    }
    let mut pixels = vec![0; width * height * 3];
    for (index, (offset, length)) in offsets.into_iter().zip(lengths).enumerate() {
        let end = offset
            .checked_add(length)
            .and_then(|end| usize::try_from(end).ok());
        let chunk = end.and_then(|end| bytes.get(offset as usize..end));
        let chunk = chunk.filter(|chunk| chunk.len() > 2);
        let chunk = chunk.ok_or_else(|| malformed("it is truncated"))?;
        let whole = match tables.len() {
            0..4 => chunk.to_vec(),
            // Without the tables' last marker and the chunk's first.
            end => [&tables[..end - 2], &chunk[2..]].concat(),
        };
        let (found_width, found) = jpeg::decode_part(&whole, colors)?;
        let (left, top) = (index % across * chunk_width, index / across * chunk_height);
        let columns = found_width.min(chunk_width).min(width - left);
        let rows = found
            .chunks_exact(found_width * 3)
            .take(chunk_height.min(height - top));
        for (row, values) in rows.enumerate() {
            let at = ((top + row) * width + left) * 3;
            pixels[at..at + columns * 3].copy_from_slice(&values[..columns * 3]);
        }
    }
    Ok(pixels)
}

/// CIELab of D50 to sRGB, as LittleCMS does it for Pillow to within a level.
fn rgb_of_lab(pixel: &[u8]) -> [u8; 3] {
    const WHITE: [f64; 3] = [0.9642, 1.0, 0.8249];
    // From XYZ of D50, by Bradford's adaptation.
    const TO_RGB: [[f64; 3]; 3] = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ];
    let lightness = f64::from(pixel[0]) * 100.0 / 255.0;
    let (a, b) = (f64::from(pixel[1] as i8), f64::from(pixel[2] as i8));
    let y = (lightness + 16.0) / 116.0;
    let linear = |value: f64| match value > 6.0 / 29.0 {
        true => value.powi(3),
        false => (value - 16.0 / 116.0) * 108.0 / 841.0,
    };
    let xyz = [y + a / 500.0, y, y - b / 200.0].map(linear);
    TO_RGB.map(|row| {
        let sum: f64 = (0..3).map(|axis| row[axis] * WHITE[axis] * xyz[axis]).sum();
        let sum = sum.clamp(0.0, 1.0);
        let value = match sum > 0.003_130_8 {
            true => 1.055 * sum.powf(1.0 / 2.4) - 0.055,
            false => 12.92 * sum,
        };
        (value * 255.0 + 0.5) as u8
    })
}

fn refusal(error: TiffError) -> ImageError {
    match error {
        TiffError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            malformed("it is truncated")
        }
        TiffError::LimitsExceeded => malformed("it needs more memory than a picture of its size"),
        TiffError::FormatError(TiffFormatError::RequiredTagNotFound(tag)) => {
            malformed(format!("it has no tag {tag:?}"))
        }
        other => malformed(other.to_string()),
    }
}

fn unsupported(what: impl std::fmt::Display) -> ImageError {
    malformed(format!("{what} are not read here; save the picture as PNG"))
}

fn malformed(reason: impl Into<String>) -> ImageError {
    ImageError::Malformed {
        format: "TIFF",
        reason: reason.into(),
    }
}
