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
    let limits = DecodeLimits {
        max_scans: MOST_SCANS,
        ..DecodeLimits::default()
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(refusal)?;
    let (width, height) = (decoder.header().width, decoder.header().height);
    check_size(width.into(), height.into(), bytes.len())?;
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
    let colors = pixels.chunks_exact(4).flat_map(|pixel| {
        let black = u32::from(pixel[3]);
        [pixel[0], pixel[1], pixel[2]].map(|ink| {
            let product = (255 - u32::from(ink)) * black + 128;
            black.saturating_sub(((product >> 8) + product) >> 8) as u8
        })
    });
    colors.collect()
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
