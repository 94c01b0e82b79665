use std::io::Cursor;

use ::image::error::LimitErrorKind;
use ::image::{
    ColorType, DynamicImage, ImageDecoder, ImageError as Error, ImageFormat, ImageReader, Limits,
};

use super::{Image, ImageError, MOST_PIXELS, jpeg, tiff};

/// What a small file may claim whatever its size: a picture of one colour compresses to almost nothing.
const FREE_PIXELS: u64 = 1 << 24;
/// Beyond that, the most pixels that a byte can stand for; deflate and LZW reach a few thousand.
const PIXELS_PER_BYTE: u64 = 10_000;

pub(super) fn decode(bytes: &[u8]) -> Result<Image, ImageError> {
    // TIFF with offsets of eight bytes is not in the crate's list.
    let format = match bytes {
        [b'I', b'I', 43, 0, ..] | [b'M', b'M', 0, 43, ..] => ImageFormat::Tiff,
        _ => ::image::guess_format(bytes).map_err(|_| ImageError::Format)?,
    };
    let name = name(format).ok_or(ImageError::Format)?;
    let picture = match format {
        ImageFormat::Jpeg => jpeg::decode(bytes)?,
        ImageFormat::Tiff => tiff::decode(bytes)?,
        _ => decode_as(format, name, bytes)?,
    };
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Image::new(width, height, rgb(picture))
}

/// Every format but JPEG and TIFF.
fn decode_as(
    format: ImageFormat,
    name: &'static str,
    bytes: &[u8],
) -> Result<DynamicImage, ImageError> {
    let refuse = |error: Error| refusal(name, &error);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The decoders' own tables are as small as the file; the picture's size is checked below.
    reader.limits(Limits::no_limits());
    let mut decoder = reader.into_decoder().map_err(refuse)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, bytes.len())?;
    let mut limits = Limits::no_limits();
    // Eight bytes a pixel is the widest that a decoder gives; as much again for what it works with.
    limits.max_alloc = Some((u64::from(width) * u64::from(height) * 16).max(1 << 20));
    decoder.set_limits(limits).map_err(refuse)?;
    let orientation = decoder.orientation().map_err(refuse)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(refuse)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn name(format: ImageFormat) -> Option<&'static str> {
    Some(match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        _ => return None,
    })
}

pub(super) fn check_size(width: u32, height: u32, bytes: usize) -> Result<(), ImageError> {
    let (width, height) = (u64::from(width), u64::from(height));
    let pixels = width * height;
    let most = FREE_PIXELS.max((bytes as u64).saturating_mul(PIXELS_PER_BYTE));
    let reason = if pixels == 0 {
        "are no picture".to_owned()
    } else if pixels > MOST_PIXELS {
        format!("are more than the {MOST_PIXELS} that are taken")
    } else if pixels > most {
        format!("are more than {bytes} bytes can hold")
    } else {
        return Ok(());
    };
    Err(ImageError::Size {
        width,
        height,
        reason,
    })
}

/// The image crate's reason in the words of someone who has only the file.
fn refusal(format: &'static str, error: &Error) -> ImageError {
    let reason = match error {
        Error::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "it is truncated".to_owned()
        }
        Error::Limits(error) if error.kind() == LimitErrorKind::InsufficientMemory => {
            "it needs more memory than a picture of its size".to_owned()
        }
        other => other.to_string(),
    };
    ImageError::Malformed { format, reason }
}

/// Pillow's `convert("RGB")`.
fn rgb(picture: DynamicImage) -> Vec<u8> {
    let high = |value: &u16| (value >> 8) as u8;
    let channels = usize::from(picture.color().channel_count());
    let colors = channels.min(3);
    match picture {
        DynamicImage::ImageRgb8(picture) => picture.into_raw(),
        DynamicImage::ImageLuma8(picture) => repeat(picture.as_raw(), 1, |value| *value),
        DynamicImage::ImageLumaA8(picture) => repeat(picture.as_raw(), 2, |value| *value),
        // Pillow's mode `I;16`, which it clips.
        DynamicImage::ImageLuma16(picture) => {
            repeat(picture.as_raw(), 1, |value| (*value).min(255) as u8)
        }
        DynamicImage::ImageLumaA16(picture) => repeat(picture.as_raw(), 2, high),
        DynamicImage::ImageRgb16(picture) => picture.as_raw().iter().map(high).collect(),
        DynamicImage::ImageRgba8(picture) => {
            let pixels = picture.as_raw().chunks_exact(channels);
            pixels.flat_map(|pixel| &pixel[..colors]).copied().collect()
        }
        DynamicImage::ImageRgba16(picture) => {
            let pixels = picture.as_raw().chunks_exact(channels);
            pixels
                .flat_map(|pixel| &pixel[..colors])
                .map(high)
                .collect()
        }
        other => match other.color() {
            ColorType::L8 => repeat(other.to_luma8().as_raw(), 1, |value| *value),
            // Floats of TIFF, whose range Pillow does not scale either.
            _ => {
                let floats = other.to_rgb32f();
                let clip = |value: &f32| value.clamp(0.0, 255.0) as u8;
                floats.as_raw().iter().map(clip).collect()
            }
        },
    }
}

/// Grey as three equal colours, from every `step`-th value.
fn repeat<T>(values: &[T], step: usize, byte: impl Fn(&T) -> u8) -> Vec<u8> {
    let grey = values.iter().step_by(step).map(byte);
    grey.flat_map(|value| [value; 3]).collect()
}
