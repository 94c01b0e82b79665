//! Resampling by convolution, to the last bit of Pillow and of torchvision.
//!
//! Both weigh the same taps, both round to bytes between the two passes. They differ in the weights' fixed
//! point and in the order of the passes. References: `src/libImaging/Resample.c` of Pillow 13.0, and
//! `aten/src/ATen/native/cpu/UpSampleKernel.cpp` of PyTorch 2.15 (`antialias=True`, bytes).

use super::{Image, ImageError, MOST_PIXELS};

/// How a pixel is made of its neighbours, by Pillow's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Filter {
    Nearest,
    Box,
    Bilinear,
    Hamming,
    Bicubic,
    Lanczos,
}

impl Filter {
    /// The filter of Pillow's number, as `resample` of a `preprocessor_config.json` has it.
    pub fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Filter::Nearest,
            1 => Filter::Lanczos,
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            4 => Filter::Box,
            5 => Filter::Hamming,
            _ => return None,
        })
    }

    /// How far a pixel sees, in pixels of the smaller picture.
    fn support(self) -> f64 {
        match self {
            Filter::Nearest | Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        use std::f64::consts::PI;
        let sinc = |x: f64| {
            if x == 0.0 {
                1.0
            } else {
                (x * PI).sin() / (x * PI)
            }
        };
        match self {
            Filter::Nearest | Filter::Box => f64::from(x > -0.5 && x <= 0.5),
            Filter::Bilinear => (1.0 - x.abs()).max(0.0),
            Filter::Hamming => {
                let x = x.abs();
                if x == 0.0 {
                    1.0
                } else if x >= 1.0 {
                    0.0
                } else {
                    let x = x * PI;
                    x.sin() / x * (0.54 + 0.46 * x.cos())
                }
            }
            Filter::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Filter::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
        }
    }
}

/// Whose fixed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// 22 bits behind the point; tall pictures are squeezed before they are narrowed.
    Pillow,
    /// As many bits as 16-bit weights have room for.
    Torch,
}

pub(super) fn resize(
    image: &Image,
    width: usize,
    height: usize,
    filter: Filter,
    arithmetic: Arithmetic,
) -> Result<Image, ImageError> {
    let pixels = (width as u64).saturating_mul(height as u64);
    if pixels == 0 || pixels > MOST_PIXELS {
        return Err(ImageError::Size {
            width: width as u64,
            height: height as u64,
            reason: format!("are not between 1 and {MOST_PIXELS}"),
        });
    }
    if (image.width, image.height) == (width, height) {
        return Ok(image.clone());
    }
    if filter == Filter::Nearest {
        return Ok(nearest(image, width, height, arithmetic));
    }
    let (old_width, old_height) = (image.width, image.height);
    let narrow = |image: &Image| match image.width == width {
        true => image.clone(),
        false => horizontal(image, &Taps::new(old_width, width, filter, arithmetic)),
    };
    let squeeze = |image: &Image| match image.height == height {
        true => image.clone(),
        false => vertical(image, &Taps::new(old_height, height, filter, arithmetic)),
    };
    // Found by trial against Pillow 13.0; earlier versions always begin with the rows.
    let vertical_first = arithmetic == Arithmetic::Pillow
        && old_height > height
        && (old_height - height) as i64 > 2 * (old_width as i64 - width as i64);
    Ok(if vertical_first {
        narrow(&squeeze(image))
    } else {
        squeeze(&narrow(image))
    })
}

/// The weights of one axis.
struct Taps {
    /// For each output: the first input, and where its weights begin and end.
    outputs: Vec<(usize, usize, usize)>,
    weights: Vec<i32>,
    precision: u32,
}

impl Taps {
    fn new(old: usize, new: usize, filter: Filter, arithmetic: Arithmetic) -> Self {
        let scale = old as f64 / new as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let mut outputs = Vec::with_capacity(new);
        let mut weights: Vec<f64> = Vec::new();
        for output in 0..new {
            let centre = (output as f64 + 0.5) * scale;
            // Casts to integers go towards zero, as C's do, and never wrap.
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(old);
            let begin = weights.len();
            let mut sum = 0.0;
            for input in first..last {
                let weight = filter.weight((input as f64 - centre + 0.5) / stretch);
                weights.push(weight);
                sum += weight;
            }
            if sum != 0.0 {
                for weight in &mut weights[begin..] {
                    *weight /= sum;
                }
            }
            outputs.push((first, begin, weights.len()));
        }
        let precision = match arithmetic {
            Arithmetic::Pillow => 22,
            Arithmetic::Torch => {
                let largest = weights.iter().copied().fold(0.0, f64::max);
                let fits = |bits: &u32| 0.5 + largest * f64::from(1_u32 << (bits + 1)) < 32768.0;
                (0..22).take_while(fits).count() as u32
            }
        };
        let unit = f64::from(1_u32 << precision);
        let fixed = |weight: &f64| (weight * unit + 0.5_f64.copysign(*weight)) as i32;
        Self {
            outputs,
            weights: weights.iter().map(fixed).collect(),
            precision,
        }
    }

    fn half(&self) -> i32 {
        1 << (self.precision - 1)
    }

    fn byte(&self, sum: i32) -> u8 {
        (sum >> self.precision).clamp(0, 255) as u8
    }
}

fn horizontal(image: &Image, taps: &Taps) -> Image {
    let width = taps.outputs.len();
    let mut pixels = Vec::with_capacity(width * image.height * 3);
    for row in image.pixels.chunks_exact(image.width * 3) {
        for &(first, begin, end) in &taps.outputs {
            let mut sums = [taps.half(); 3];
            let inputs = row[first * 3..].chunks_exact(3);
            for (weight, input) in taps.weights[begin..end].iter().zip(inputs) {
                for (sum, value) in sums.iter_mut().zip(input) {
                    *sum = sum.wrapping_add(i32::from(*value).wrapping_mul(*weight));
                }
            }
            pixels.extend(sums.map(|sum| taps.byte(sum)));
        }
    }
    Image {
        width,
        height: image.height,
        pixels,
    }
}

fn vertical(image: &Image, taps: &Taps) -> Image {
    let stride = image.width * 3;
    let mut pixels = Vec::with_capacity(stride * taps.outputs.len());
    let mut sums = vec![0; stride];
    for &(first, begin, end) in &taps.outputs {
        sums.fill(taps.half());
        let rows = image.pixels[first * stride..].chunks_exact(stride);
        for (weight, row) in taps.weights[begin..end].iter().zip(rows) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i32::from(*value).wrapping_mul(*weight));
            }
        }
        pixels.extend(sums.iter().map(|sum| taps.byte(*sum)));
    }
    Image {
        width: image.width,
        height: taps.outputs.len(),
        pixels,
    }
}

fn nearest(image: &Image, width: usize, height: usize, arithmetic: Arithmetic) -> Image {
    let sources = |old: usize, new: usize| -> Vec<usize> {
        match arithmetic {
            Arithmetic::Pillow => {
                let scale = old as f64 / new as f64;
                let mut at = scale * 0.5;
                let step = |_| {
                    let source = at as usize;
                    at += scale;
                    source.min(old - 1)
                };
                (0..new).map(step).collect()
            }
            // torchvision's `nearest-exact`, with a scale of single precision.
            Arithmetic::Torch => {
                let scale = f64::from(old as f32 / new as f32);
                let source = |output| ((output as f64 + 0.5) * scale) as f32 as usize;
                (0..new).map(|output| source(output).min(old - 1)).collect()
            }
        }
    };
    let columns = sources(image.width, width);
    let mut pixels = Vec::with_capacity(width * height * 3);
    for row in sources(image.height, height) {
        let row = &image.pixels[row * image.width * 3..];
        for column in &columns {
            pixels.extend_from_slice(&row[column * 3..][..3]);
        }
    }
    Image {
        width,
        height,
        pixels,
    }
}
