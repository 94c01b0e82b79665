//! JPEG by a port of libjpeg-turbo: inverse transform, chroma interpolation and colours rounded as in Pillow,
//! where other decoders differ by a few levels.

use ::image::metadata::Orientation;
use ::image::{DynamicImage, GrayImage, RgbImage};
use libjpeg_turbo_rs::{DecodeLimits, DecodeWarning, Decoder, JpegError, PixelFormat};

use super::ImageError;
use super::decode::check_size;

/// A progressive file has some ten; each more costs the time of the whole picture for a few bytes.
const MOST_SCANS: usize = 500;

pub(super) fn decode(bytes: &[u8]) -> Result<DynamicImage, ImageError> {
    decode_checked(bytes, bytes.len())
}

/// What the components of a JPEG inside of another file are, which that file says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Colors {
    Grey,
    Rgb,
    YCbCr,
}

/// Decodes a JPEG inside of another file: its width, and red, green and blue.
pub(super) fn decode_part(bytes: &[u8], colors: Colors) -> Result<(usize, Vec<u8>), ImageError> {
    let begins = |start: &[u8]| bytes.starts_with(start);
    if !begins(&[0xff, 0xd8]) {
        return Err(malformed("it does not begin as one".to_owned()));
    }
    // Adobe's marker says whether colours are to be converted.
    let marker = [
        &[0xff, 0xee, 0, 14][..],
        b"Adobe",
        &[0, 100, 0, 0, 0, 0, u8::from(colors == Colors::YCbCr)],
    ];
    let whole = match colors {
        Colors::Grey => bytes.to_vec(),
        _ => [&bytes[..2], &marker.concat(), &bytes[2..]].concat(),
    };
    let picture = decode_checked(&whole, bytes.len())?.into_rgb8();
    Ok((picture.width() as usize, picture.into_raw()))
}

fn decode_checked(bytes: &[u8], length: usize) -> Result<DynamicImage, ImageError> {
    let limits = DecodeLimits {
        max_scans: MOST_SCANS,
        ..DecodeLimits::default()
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(refusal)?;
    let (width, height) = (decoder.header().width, decoder.header().height);
    check_size(width.into(), height.into(), length)?;
    let layout = match decoder.header().components.len() {
        1 => PixelFormat::Grayscale,
        4 => PixelFormat::Cmyk,
        _ => PixelFormat::Rgb,
    };
    decoder.set_output_format(layout);
    // Pillow takes damaged blocks as libjpeg repairs them, and refuses only a file that ends too early.
    decoder.set_lenient(true);
    let found = decoder.decode_image().map_err(refusal)?;
    let truncated =
        |warning: &DecodeWarning| matches!(warning, DecodeWarning::TruncatedData { .. });
    if found.warnings.iter().any(truncated) {
        return Err(malformed("it is truncated".to_owned()));
    }
    let (width, height) = (u32::from(width), u32::from(height));
    let picture = match layout {
        PixelFormat::Grayscale => GrayImage::from_raw(width, height, found.data).map(Into::into),
        PixelFormat::Cmyk => {
            RgbImage::from_raw(width, height, from_cmyk(&found.data)).map(Into::into)
        }
        _ => RgbImage::from_raw(width, height, found.data).map(Into::into),
    };
    let mut picture: DynamicImage =
        picture.ok_or_else(|| malformed("its pixels are fewer than its size says".to_owned()))?;
    if let Some(orientation) = decoder.exif_orientation().and_then(Orientation::from_exif) {
        picture.apply_orientation(orientation);
    }
    Ok(picture)
}

/// Pillow's way from CMYK, which it takes to be inverted, as Adobe writes it.
fn from_cmyk(pixels: &[u8]) -> Vec<u8> {
    let pixels = pixels.chunks_exact(4);
    let inverted = pixels.map(|pixel| [0, 1, 2, 3].map(|ink: usize| 255 - pixel[ink]));
    inverted.flat_map(|pixel| rgb_of_cmyk(&pixel)).collect()
}

/// Pillow's way from CMYK of four bytes.
pub(super) fn rgb_of_cmyk(pixel: &[u8]) -> [u8; 3] {
    let white = 255 - u32::from(pixel[3]);
    [pixel[0], pixel[1], pixel[2]].map(|ink| {
        let product = u32::from(ink) * white + 128;
        white.saturating_sub(((product >> 8) + product) >> 8) as u8
    })
}

fn refusal(error: JpegError) -> ImageError {
    malformed(match error {
        JpegError::UnexpectedEof => "it is truncated".to_owned(),
        other => other.to_string(),
    })
}

fn malformed(reason: String) -> ImageError {
    ImageError::Malformed {
        format: "JPEG",
        reason,
    }
}
