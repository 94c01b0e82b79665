//! Pictures to tensors, as the reference's image processors do it.

mod decode;
mod jpeg;
mod processor;
mod resize;
mod tiff;

pub use processor::{Backend, ImageProcessor, Pixels, TORCHVISION_TRANSFORMS};
pub use resize::Filter;

/// A picture that cannot be read or prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The bytes are of no format that is read here.
    #[error("not a picture in a known format; PNG, JPEG, WebP, GIF, BMP and TIFF are read")]
    Format,
    /// The bytes are damaged.
    #[error("not a valid {format} file: {reason}")]
    Malformed {
        /// The format that the file begins as.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The picture is larger than is taken.
    #[error("{width} × {height} pixels {reason}")]
    Size {
        /// The width that is claimed or asked for.
        width: u64,
        /// The height.
        height: u64,
        /// Which limit that is beyond.
        reason: String,
    },
}

/// The most pixels of a picture: Pillow's, beyond which it calls a picture a decompression bomb.
pub(crate) const MOST_PIXELS: u64 = 178_956_970;

/// A decoded picture: red, green and blue, a byte each, row by row from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Image {
    /// A picture of `width × height` pixels of three bytes.
    ///
    /// # Errors
    /// There is no pixel, or not as many bytes as that.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, ImageError> {
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if width == 0 || height == 0 || expected != Some(pixels.len()) {
            return Err(ImageError::Size {
                width: width as u64,
                height: height as u64,
                reason: format!("do not come from {} bytes", pixels.len()),
            });
        }
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// The width.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The height.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes, three a pixel.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Decodes PNG, JPEG, WebP, GIF, BMP or TIFF, turned upright by its EXIF orientation.
    ///
    /// As `load_image` of transformers 5.23 does it with Pillow: the first frame of an animation; an alpha
    /// channel is dropped, not blended; colours of 16 bits keep their high byte, while grey ones of 16 bits
    /// are clipped at 255; CMYK becomes RGB without a colour profile.
    ///
    /// # Errors
    /// The bytes are of no known format, damaged or truncated, or claim more pixels than are taken: more than
    /// Pillow takes, or more than bytes of that number can hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        decode::decode(bytes)
    }

    /// The picture at another size, as Pillow makes it.
    ///
    /// # Errors
    /// The size is zero or larger than is taken.
    pub fn resize(&self, width: usize, height: usize, filter: Filter) -> Result<Self, ImageError> {
        resize::resize(self, width, height, filter, resize::Arithmetic::Pillow)
    }
}
