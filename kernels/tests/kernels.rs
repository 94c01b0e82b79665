//! Every kernel of every instruction set against the definition, in f64, on random shapes.
#![allow(clippy::unwrap_used)]
// Of the allocator.
#![allow(unsafe_code)]

use salamander_kernels::activation::{Activation, activate};
use salamander_kernels::attention::{Attention, Grid, Heads, attend};
use salamander_kernels::conv::{Shape, Weights, convolve, convolve_bf16};
use salamander_kernels::gemm::{
    Epilogue, Packed, Stored, View, multiply, multiply_few, multiply_once,
};
use salamander_kernels::narrow::{Narrow, Numbers, NumbersMut, Unit, multiply_numbers};
use salamander_kernels::norm::{LayerNorm, layer_norm, scale_shift};
use salamander_kernels::pooling::{Window, max_pool, max_pool_bf16};
use salamander_kernels::{Isa, Precision};

#[cfg(all(unix, not(miri)))]
mod guarded;

#[cfg(all(unix, not(miri)))]
#[global_allocator]
static GUARDED: guarded::Guarded = guarded::Guarded;

/// A small generator of numbers, so that a failure is found again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }

    fn float(&mut self) -> f32 {
        self.next() as f32 / (1_u64 << 30) as f32 - 1.0
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

/// Miri, which looks at every access, takes a thousand times as long.
fn rounds(count: usize) -> usize {
    if cfg!(miri) { count / 20 } else { count }
}

/// How large sides are at most: large ones every few rounds.
fn most(round: usize, every: usize, [large, small]: [usize; 2]) -> usize {
    if cfg!(miri) {
        small.div_ceil(3)
    } else if round.is_multiple_of(every) {
        large
    } else {
        small
    }
}

/// As `activate` should be.
fn exact(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let scale = (2.0 / std::f64::consts::PI).sqrt();
            0.5 * x * (1.0 + (scale * (x + 0.044_715 * x * x * x)).tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Silu => x * sigmoid(x),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
    }
}

/// By its series, which converges where it is used; 1 beyond.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut sum, mut term) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

const ACTIVATIONS: [Activation; 8] = [
    Activation::None,
    Activation::Relu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Silu,
    Activation::Sigmoid,
    Activation::Tanh,
];

#[track_caller]
fn close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - expected).abs();
        let allowed = tolerance * expected.abs().max(1.0);
        assert!(
            difference <= allowed,
            "{what}: [{index}] is {found}, not {expected}"
        );
    }
}

#[test]
fn activations() {
    let step = if cfg!(miri) { 500 } else { 1 };
    let inputs = (-12_000..12_000).step_by(step);
    let inputs: Vec<f32> = inputs.map(|i| i as f32 / 1000.0).collect();
    for isa in Isa::present() {
        for activation in ACTIVATIONS {
            for count in [0, 1, 7, 16, 33, inputs.len()] {
                let mut found = vec![0.0; count];
                activate(isa, activation, &inputs[..count], &mut found);
                let exact = inputs[..count]
                    .iter()
                    .map(|&x| exact(activation, f64::from(x)));
                let exact: Vec<f64> = exact.collect();
                close(&found, &exact, 2e-6, &format!("{isa:?} {activation:?}"));
            }
            let extremes = [f32::NEG_INFINITY, -1e30, -0.0, 0.0, 1e30, f32::NAN];
            let mut found = [0.0; 6];
            activate(isa, activation, &extremes, &mut found);
            assert!(found[5].is_nan(), "{isa:?} {activation:?} hides NaN");
            assert!(
                found[1..5].iter().all(|value| value.is_finite()),
                "{isa:?} {activation:?} {found:?}"
            );
        }
    }
}

#[test]
fn products() {
    let mut random = Random(1);
    for round in 0..rounds(120) {
        let most = most(round, 8, [300, 40]);
        let shape = [random.below(most), random.below(most), random.below(most)];
        let [m, k, n] = shape;
        let (a, b) = (random.floats(m * k), random.floats(k * n));
        let (bias, residual) = (random.floats(n), random.floats(m * n));
        let transposed = random.below(2) == 1;
        let strides = if transposed { [1, k] } else { [n, 1] };
        let activation = ACTIVATIONS[random.below(ACTIVATIONS.len())];
        let epilogue = Epilogue {
            bias: (random.below(2) == 1).then_some(&bias),
            residual: (random.below(2) == 1).then_some(&residual),
            activation,
        };
        let mut expected = Vec::new();
        for row in 0..m {
            for column in 0..n {
                let products = (0..k).map(|i| {
                    let b = b[i * strides[0] + column * strides[1]];
                    f64::from(a[row * k + i]) * f64::from(b)
                });
                let mut sum: f64 = products.sum();
                sum += epilogue.bias.map_or(0.0, |bias| f64::from(bias[column]));
                sum += epilogue
                    .residual
                    .map_or(0.0, |rows| f64::from(rows[row * n + column]));
                expected.push(exact(activation, sum));
            }
        }
        for isa in Isa::present() {
            let what = format!("{isa:?} {shape:?} {epilogue:?}");
            let view = View {
                data: Stored::F32(&b),
                shape: [k, n],
                strides,
            };
            let packed = Packed::new(isa, view);
            let mut found = vec![f32::NAN; m * n];
            multiply(&a, &packed, epilogue, &mut found);
            close(&found, &expected, 2e-5, &what);
            let mut once = vec![f32::NAN; m * n];
            multiply_once(isa, &a, view, epilogue, &mut once);
            assert_eq!(found, once, "{what}");
            if transposed {
                let mut found = vec![f32::NAN; m * n];
                multiply_few(isa, &a, &b, shape, epilogue, &mut found);
                close(&found, &expected, 2e-5, &what);
            }
        }
    }
}

/// Weights of f16 and bf16 give what the same in f32 do, however they lie.
#[test]
fn stored_halves() {
    let mut random = Random(21);
    for round in 0..rounds(60) {
        let most = most(round, 8, [70, 100]);
        let [m, k, n] = [1 + random.below(20), random.below(most), random.below(most)];
        let strides = match random.below(3) {
            0 => [1, k],
            1 => [n, 1],
            _ => [2, 2 * k + 1],
        };
        let count = 1 + k * strides[0] + n * strides[1];
        let a = random.floats(m * k);
        let half: Vec<half::f16> = random
            .floats(count)
            .into_iter()
            .map(half::f16::from_f32)
            .collect();
        let upper: Vec<half::bf16> = random
            .floats(count)
            .into_iter()
            .map(half::bf16::from_f32)
            .collect();
        let wide: [Vec<f32>; 2] = [
            half.iter().map(|x| x.to_f32()).collect(),
            upper.iter().map(|x| x.to_f32()).collect(),
        ];
        for (stored, wide) in [Stored::F16(&half), Stored::Bf16(&upper)]
            .into_iter()
            .zip(&wide)
        {
            let view = |data| View {
                data,
                shape: [k, n],
                strides,
            };
            let epilogue = Epilogue::default();
            for isa in Isa::present() {
                let mut expected = vec![f32::NAN; m * n];
                let packed = Packed::new(isa, view(Stored::F32(wide)));
                multiply(&a, &packed, epilogue, &mut expected);
                let mut found = vec![f32::NAN; m * n];
                multiply(&a, &Packed::new(isa, view(stored)), epilogue, &mut found);
                assert_eq!(found, expected, "{isa:?} {m}×{k}×{n} {strides:?}");
                multiply_once(isa, &a, view(stored), epilogue, &mut found);
                assert_eq!(found, expected, "{isa:?} {m}×{k}×{n} {strides:?}, once");
            }
            for precision in NARROW {
                let unit = Unit::present(precision).pop().unwrap();
                let products = |data| {
                    let packed = Narrow::new(precision, unit, view(data)).unwrap();
                    let mut found = vec![f32::NAN; m * n];
                    salamander_kernels::narrow::multiply(&a, &packed, epilogue, &mut found);
                    found
                };
                let what = format!("{precision:?} {m}×{k}×{n} {strides:?}");
                assert_eq!(products(stored), products(Stored::F32(wide)), "{what}");
            }
        }
    }
}

#[test]
fn norms() {
    let mut random = Random(2);
    for _ in 0..rounds(40) {
        let (count, width) = (random.below(20), 1 + random.below(200));
        let rows: Vec<f32> = random
            .floats(count * width)
            .iter()
            .map(|x| x + 3.0)
            .collect();
        let other = random.floats(count * width);
        let (gamma, beta) = (random.floats(width), random.floats(width));
        let residual = (random.below(2) == 1).then_some(&other[..]);
        let norm = LayerNorm {
            gamma: &gamma,
            beta: (random.below(2) == 1).then_some(&beta),
            epsilon: 1e-5,
        };
        let mut expected = Vec::new();
        for row in 0..count {
            let sums = (0..width).map(|i| {
                let at = row * width + i;
                f64::from(rows[at]) + residual.map_or(0.0, |other| f64::from(other[at]))
            });
            let sums: Vec<f64> = sums.collect();
            let mean = sums.iter().sum::<f64>() / width as f64;
            let variance = sums.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            for (i, x) in sums.iter().enumerate() {
                let scaled = (x - mean) / (variance + 1e-5).sqrt() * f64::from(gamma[i]);
                expected.push(scaled + norm.beta.map_or(0.0, |beta| f64::from(beta[i])));
            }
        }
        for isa in Isa::present() {
            let mut found = vec![f32::NAN; count * width];
            layer_norm(isa, norm, &rows, residual, &mut found);
            let mut scaled = vec![f32::NAN; count * width];
            scale_shift(isa, &gamma, &beta, &rows, residual, &mut scaled);
            let sums = (0..count * width).map(|at| {
                let sum = rows[at] + residual.map_or(0.0, |other| other[at]);
                f64::from(sum * gamma[at % width] + beta[at % width])
            });
            close(
                &scaled,
                &sums.collect::<Vec<f64>>(),
                1e-5,
                "scale and shift",
            );
            // A width of 1 divides nothing by the root of epsilon.
            close(
                &found,
                &expected,
                1e-3,
                &format!("{isa:?} {count} × {width}"),
            );
        }
    }
}

#[test]
fn attentions() {
    let mut random = Random(3);
    for round in 0..rounds(60) {
        let most = most(round, 10, [150, 30]);
        let (batch, heads) = (1 + random.below(2), 1 + random.below(3));
        let (queries, keys) = (random.below(most), random.below(most));
        let (width, value_width) = (1 + random.below(70), 1 + random.below(70));
        // [batch, rows, heads, width], as projections lie, or [batch, heads, rows, width].
        let lay = |rows: usize, width: usize, joined: bool| {
            if joined {
                [rows * heads * width, width, heads * width]
            } else {
                [heads * rows * width, rows * width, width]
            }
        };
        let joined = random.below(2) == 1;
        let query = random.floats(batch * heads * queries * width);
        let key = random.floats(batch * heads * keys * width);
        let value = random.floats(batch * heads * keys * value_width);
        let padding: Vec<u8> = (0..batch * keys)
            .map(|_| u8::from(random.below(4) == 0))
            .collect();
        let bias = random.floats(heads * queries * keys);
        let causal = random.below(3) == 0;
        let work = Attention {
            batch,
            heads,
            queries,
            keys,
            width,
            value_width,
            query: Heads {
                data: &query,
                strides: lay(queries, width, joined),
            },
            key: Heads {
                data: &key,
                strides: lay(keys, width, joined),
            },
            value: Heads {
                data: &value,
                strides: lay(keys, value_width, joined),
            },
            mask: (random.below(2) == 1).then_some(Grid {
                data: &padding,
                strides: [keys, 0, 0, 1],
            }),
            bias: (random.below(2) == 1).then_some(Grid {
                data: &bias,
                strides: [0, queries * keys, keys, 1],
            }),
            scale: 0.3,
            causal,
        };
        let expected = naive(&work);
        for isa in Isa::present() {
            let mut found = vec![f32::NAN; expected.len()];
            attend(isa, None, &work, &mut found);
            let what =
                format!("{isa:?} {batch} {heads} {queries} {keys} {width} {value_width} {causal}");
            close(&found, &expected, 1e-5, &what);
        }
        for unit in Unit::present(Precision::Bf16) {
            let mut found = vec![f32::NAN; expected.len()];
            attend(Isa::present()[0], Some(unit), &work, &mut found);
            let what =
                format!("{unit:?} {batch} {heads} {queries} {keys} {width} {value_width} {causal}");
            close(&found, &expected, 2e-2, &what);
        }
    }
}

fn naive(work: &Attention<'_>) -> Vec<f64> {
    let at = |side: &Heads<'_>, place: [usize; 3], i: usize| {
        let start: usize = place.iter().zip(side.strides).map(|(a, b)| a * b).sum();
        f64::from(side.data[start + i])
    };
    let mut out = Vec::new();
    for batch in 0..work.batch {
        for query in 0..work.queries {
            for head in 0..work.heads {
                let grid = |strides: [usize; 4], key: usize| {
                    [batch, head, query, key]
                        .iter()
                        .zip(strides)
                        .map(|(a, b)| a * b)
                        .sum::<usize>()
                };
                let score = |key: usize| {
                    let products = (0..work.width).map(|i| {
                        at(&work.query, [batch, head, query], i)
                            * at(&work.key, [batch, head, key], i)
                    });
                    let late = work.causal && key + work.queries > query + work.keys;
                    let hidden = work
                        .mask
                        .is_some_and(|mask| mask.data[grid(mask.strides, key)] != 0);
                    if late || hidden {
                        return f64::NEG_INFINITY;
                    }
                    let bias = work
                        .bias
                        .map_or(0.0, |bias| bias.data[grid(bias.strides, key)]);
                    products.sum::<f64>() * f64::from(work.scale) + f64::from(bias)
                };
                let scores: Vec<f64> = (0..work.keys).map(score).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores
                    .iter()
                    .map(|score| {
                        if most.is_finite() {
                            (score - most).exp()
                        } else {
                            0.0
                        }
                    })
                    .collect();
                let total = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
                for i in 0..work.value_width {
                    let sum = (0..work.keys)
                        .map(|key| weights[key] / total * at(&work.value, [batch, head, key], i));
                    out.push(sum.sum::<f64>());
                }
            }
        }
    }
    out
}

#[test]
fn convolutions() {
    let mut random = Random(4);
    for round in 0..rounds(200) {
        let groups = [1, 1, 1, 2, 3][random.below(5)];
        let most = most(round, 5, [200, 12]);
        let channels = [
            (1 + random.below(5)) * groups,
            (1 + random.below(most)) * groups,
        ];
        let pick = |random: &mut Random, least: usize, most: usize| {
            [least + random.below(most), least + random.below(most)]
        };
        let shape = Shape {
            batch: 1 + random.below(3),
            groups,
            channels,
            input: pick(&mut random, 1, 24),
            kernel: pick(&mut random, 1, 5),
            stride: pick(&mut random, 1, 3),
            padding: pick(&mut random, 0, 4),
            dilation: pick(&mut random, 1, 2),
        };
        convolution(&mut random, &shape, 2e-5);
    }
}

/// As many channels and pixels as are computed by Winograd's way.
#[test]
fn convolutions_of_three_by_three() {
    let mut random = Random(11);
    for round in 0..rounds(24) {
        let channels = [0; 2].map(|_: usize| 16 * (2 + random.below(5)));
        // Of the last, weights are so many that each thread reads a part of them.
        let channels = if round < 22 { channels } else { [272, 256] };
        let shape = Shape {
            batch: 1 + random.below(4),
            groups: 1,
            channels,
            input: [19 + random.below(16), 22 + random.below(16)],
            kernel: [3; 2],
            stride: [1; 2],
            padding: [random.below(4), random.below(4)],
            dilation: [1; 2],
        };
        // Of the size that sums of as many random numbers have.
        let size = ((9 * channels[0]) as f64).sqrt();
        convolution(&mut random, &shape, 4e-6 * size);
    }
}

/// Compares a convolution of random numbers.
fn convolution(random: &mut Random, shape: &Shape, tolerance: f64) {
    let Some([height, width]) = shape.output() else {
        return;
    };
    let channels = shape.channels;
    let patch = channels[0] / shape.groups * shape.kernel[0] * shape.kernel[1];
    let input = random.floats(shape.batch * channels[0] * shape.input[0] * shape.input[1]);
    let weights = random.floats(channels[1] * patch);
    let bias = random.floats(channels[1]);
    let residual = random.floats(shape.batch * channels[1] * height * width);
    let bias = (random.below(2) == 1).then_some(&bias[..]);
    let residual = (random.below(2) == 1).then_some(&residual[..]);
    let activation = [Activation::None, Activation::Relu, Activation::Gelu][random.below(3)];
    let scale = random.floats(channels[1]);
    let scale = (random.below(2) == 1).then_some(&scale[..]);
    let whole = scaled(&weights, scale);
    let expected = naive_convolution(shape, &input, &whole, bias, residual, activation);
    for isa in Isa::present() {
        let weights = Weights::new(isa, shape, &weights, scale);
        let last = channels_last(&input, channels[0], shape.batch);
        let residual = residual.map(|r| channels_last(r, channels[1], shape.batch));
        let epilogue = Epilogue {
            bias,
            residual: residual.as_deref(),
            activation,
        };
        let mut found = vec![f32::NAN; expected.len()];
        convolve(shape, &last, &weights, epilogue, &mut found);
        close(
            &found,
            &channels_last(&expected, channels[1], shape.batch),
            tolerance,
            &format!("{isa:?} {shape:?} {activation:?}"),
        );
    }
}

/// The weights of each output channel multiplied by its scale.
fn scaled(weights: &[f32], scale: Option<&[f32]>) -> Vec<f32> {
    let Some(scale) = scale else {
        return weights.to_vec();
    };
    let patch = weights.len() / scale.len();
    let weights = weights.iter().enumerate();
    weights.map(|(at, x)| x * scale[at / patch]).collect()
}

/// `[batch, channels, pixels]` as `[batch, pixels, channels]`.
fn channels_last<T: Copy>(values: &[T], channels: usize, batch: usize) -> Vec<T> {
    let pixels = values.len() / (channels * batch).max(1);
    let mut found = Vec::with_capacity(values.len());
    for picture in values.chunks_exact((channels * pixels).max(1)) {
        for pixel in 0..pixels {
            found.extend((0..channels).map(|channel| picture[channel * pixels + pixel]));
        }
    }
    found
}

fn naive_convolution(
    shape: &Shape,
    input: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
    activation: Activation,
) -> Vec<f64> {
    let [height, width] = shape.output().unwrap();
    let [inputs, outputs] = shape.channels.map(|channels| channels / shape.groups);
    let mut found: Vec<f64> = Vec::new();
    for batch in 0..shape.batch {
        for output in 0..shape.channels[1] {
            for y in 0..height {
                for x in 0..width {
                    let mut sum = bias.map_or(0.0, |bias| f64::from(bias[output]));
                    sum += residual.map_or(0.0, |all| f64::from(all[found.len()]));
                    for channel in 0..inputs {
                        for ky in 0..shape.kernel[0] {
                            for kx in 0..shape.kernel[1] {
                                let row = y * shape.stride[0] + ky * shape.dilation[0];
                                let column = x * shape.stride[1] + kx * shape.dilation[1];
                                let Some(row) = row.checked_sub(shape.padding[0]) else {
                                    continue;
                                };
                                let Some(column) = column.checked_sub(shape.padding[1]) else {
                                    continue;
                                };
                                if row >= shape.input[0] || column >= shape.input[1] {
                                    continue;
                                }
                                let plane =
                                    batch * shape.channels[0] + output / outputs * inputs + channel;
                                let pixel =
                                    input[(plane * shape.input[0] + row) * shape.input[1] + column];
                                let kernel = (output * inputs + channel) * shape.kernel[0] + ky;
                                let weight = weights[kernel * shape.kernel[1] + kx];
                                sum += f64::from(pixel) * f64::from(weight);
                            }
                        }
                    }
                    found.push(exact(activation, sum));
                }
            }
        }
    }
    found
}

#[test]
fn pools() {
    let mut random = Random(5);
    for _ in 0..rounds(100) {
        let mut pick =
            |least: usize, most: usize| [least + random.below(most), least + random.below(most)];
        let window = Window {
            input: pick(1, 40),
            kernel: pick(1, 4),
            stride: pick(1, 3),
            padding: pick(0, 3),
        };
        let Some([height, width]) = window.output() else {
            continue;
        };
        let [rows, columns] = window.input;
        let (batch, channels) = (1 + random.below(2), random.below(40));
        let planes = batch * channels;
        let input = random.floats(planes * rows * columns);
        let mut expected = Vec::new();
        for plane in 0..planes {
            for y in 0..height {
                for x in 0..width {
                    let mut most = f64::NEG_INFINITY;
                    for row in y * window.stride[0]..y * window.stride[0] + window.kernel[0] {
                        for column in x * window.stride[1]..x * window.stride[1] + window.kernel[1]
                        {
                            let row = row.wrapping_sub(window.padding[0]);
                            let column = column.wrapping_sub(window.padding[1]);
                            if row < rows && column < columns {
                                let value = input[(plane * rows + row) * columns + column];
                                most = most.max(f64::from(value));
                            }
                        }
                    }
                    expected.push(most);
                }
            }
        }
        for isa in Isa::present() {
            let mut found = vec![f32::NAN; expected.len()];
            let last = channels_last(&input, channels, batch);
            max_pool(isa, &window, channels, &last, &mut found);
            let expected = channels_last(&expected, channels, batch);
            close(&found, &expected, 0.0, &format!("{isa:?} {window:?}"));
            // What is greatest is so when it is rounded.
            let mut halves = vec![u16::MAX; expected.len()];
            max_pool_bf16(isa, &window, channels, &to_bf16(&last), &mut halves);
            assert_eq!(halves, to_bf16(&found), "{isa:?} {window:?} of bf16");
        }
    }
}

/// What weights are kept in besides f32.
const NARROW: [Precision; 4] = [
    Precision::F16,
    Precision::Bf16,
    Precision::Int8,
    Precision::Int4,
];

/// bf16 and int8 stay within what rounding both sides can cost, and follow f32 to the bit where it costs
/// nothing.
#[test]
fn narrow_products() {
    let mut random = Random(11);
    for round in 0..rounds(120) {
        let most = most(round, 8, [300, 70]);
        let [mut m, mut k, n] = [random.below(most), random.below(most), random.below(most)];
        match random.below(4) {
            // Whole tiles, which are taken as they lie where they are of bf16.
            0 => [m, k] = [m.next_multiple_of(16), k.next_multiple_of(32)],
            // So deep that it is cut.
            1 => [m, k] = [m / 4, k + 600],
            _ => {}
        }
        // Whole numbers of few bits lose nothing in bf16.
        let whole = random.below(3) == 0;
        let mut numbers = |count: usize| -> Vec<f32> {
            let numbers = random.floats(count).into_iter();
            numbers
                .map(|x| if whole { (x * 100.0).round() } else { x })
                .collect()
        };
        let (a, b, bias, residual) = (numbers(m * k), numbers(k * n), numbers(n), numbers(m * n));
        let strides = if random.below(2) == 1 { [1, k] } else { [n, 1] };
        let activation = if random.below(2) == 1 {
            Activation::Relu
        } else {
            Activation::None
        };
        let epilogue = Epilogue {
            bias: (random.below(2) == 1).then_some(&bias),
            residual: (random.below(2) == 1).then_some(&residual),
            activation,
        };
        let view = View {
            data: Stored::F32(&b),
            shape: [k, n],
            strides,
        };
        let at = |i: usize, column: usize| f64::from(b[i * strides[0] + column * strides[1]]);
        for precision in NARROW {
            // The blocks' greatest sizes; the number of another sign that is as great loses an eighth.
            let most = |column: usize, i: usize| {
                let (from, to) = match precision {
                    Precision::Int4 => (i / 32 * 32, k.min(i / 32 * 32 + 32)),
                    _ => (0, k),
                };
                (from..to).map(|i| at(i, column).abs()).fold(0.0, f64::max)
            };
            let mut expected = Vec::new();
            let mut allowed = Vec::new();
            for row in 0..m {
                let a = &a[row * k..(row + 1) * k];
                let least = a.iter().fold(0.0_f32, |x, y| x.min(*y));
                let range = f64::from(a.iter().fold(0.0_f32, |x, y| x.max(*y)) - least);
                for column in 0..n {
                    let (mut sum, mut error) = (0.0, 0.0);
                    for (i, &a) in a.iter().enumerate() {
                        let (a, b) = (f64::from(a), at(i, column));
                        sum += a * b;
                        let (of_a, of_b) = match precision {
                            Precision::Bf16 if whole => (0.0, 0.0),
                            Precision::Bf16 => (a.abs() / 256.0, b.abs() / 256.0),
                            // Below 2^-14 the numbers are 2^-24 apart.
                            Precision::F16 => (0.0, b.abs() / 2048.0 + 3e-8),
                            Precision::Int4 => (0.0, most(column, i) / 8.0),
                            // Half a step, and the same for the zero's own rounding.
                            _ => (range / 255.0, most(column, 0) / 254.0),
                        };
                        error += of_a * b.abs() + of_b * a.abs() + of_a * of_b;
                    }
                    sum += epilogue.bias.map_or(0.0, |bias| f64::from(bias[column]));
                    sum += epilogue
                        .residual
                        .map_or(0.0, |rows| f64::from(rows[row * n + column]));
                    expected.push(exact(activation, sum));
                    allowed.push(1.001 * error + 1e-5 * (1.0 + sum.abs()));
                }
            }
            for unit in Unit::present(precision) {
                let packed = Narrow::new(precision, unit, view).unwrap();
                assert_eq!(packed.shape(), [k, n]);
                let mut found = vec![f32::NAN; m * n];
                salamander_kernels::narrow::multiply(&a, &packed, epilogue, &mut found);
                if packed.takes_bf16() {
                    let mut halves = vec![u16::MAX; m * n];
                    let rounded = to_bf16(&a);
                    let (a, out) = (Numbers::Bf16(&rounded), NumbersMut::Bf16(&mut halves));
                    multiply_numbers(a, &packed, epilogue.into(), out);
                    assert_eq!(halves, to_bf16(&found), "{unit:?} {m}×{k}×{n}");
                }
                for (index, found) in found.iter().enumerate() {
                    let difference = (f64::from(*found) - expected[index]).abs();
                    assert!(
                        difference <= allowed[index],
                        "{precision:?} {unit:?} {m}×{k}×{n} [{index}] is {found}, not {}",
                        expected[index]
                    );
                }
            }
        }
    }
}

/// Every number of f16 comes back, for a few rows and for many, and what is beyond them is infinite.
#[test]
fn weights_of_f16_are_kept() {
    let numbers: Vec<f32> = (0..=u16::MAX)
        .map(|bits| half::f16::from_bits(bits).to_f32())
        .chain([65_520.0, -1e9, 1e-9])
        .collect();
    let n = numbers.len();
    let view = View {
        data: Stored::F32(&numbers),
        shape: [1, n],
        strides: [n, 1],
    };
    for m in [1, 9] {
        let ones = vec![1.0; m];
        for unit in Unit::present(Precision::F16) {
            let packed = Narrow::new(Precision::F16, unit, view).unwrap();
            assert!(packed.bytes() < 2 * n + 4096);
            let mut found = vec![0.0; m * n];
            salamander_kernels::narrow::multiply(&ones, &packed, Epilogue::default(), &mut found);
            for (index, found) in found.iter().enumerate() {
                let expected = half::f16::from_f32(numbers[index % n]).to_f32();
                let same = *found == expected || (found.is_nan() && expected.is_nan());
                assert!(same, "{unit:?} {found}, not {expected}");
            }
        }
    }
}

/// Multiples of a block's scale stay what they are, for a few rows and for many.
#[test]
fn weights_of_four_bits_are_kept() {
    let mut random = Random(14);
    for round in 0..rounds(60) {
        let most = most(round, 8, [300, 70]);
        let [m, k, n] = [random.below(20), random.below(most), random.below(most)];
        let mut b = vec![0.0; k * n];
        for column in 0..n {
            for first in (0..k).step_by(32) {
                let scale = random.floats(1)[0];
                for i in first..k.min(first + 32) {
                    let number = if i == first { 16 } else { 1 + random.below(15) };
                    b[i * n + column] = scale * (8.0 - number as f32);
                }
            }
        }
        let a = random.floats(m * k);
        let view = View {
            data: Stored::F32(&b),
            shape: [k, n],
            strides: [n, 1],
        };
        for unit in Unit::present(Precision::Int4) {
            let packed = Narrow::new(Precision::Int4, unit, view).unwrap();
            let mut found = vec![f32::NAN; m * n];
            salamander_kernels::narrow::multiply(&a, &packed, Epilogue::default(), &mut found);
            for (index, found) in found.iter().enumerate() {
                let (row, column) = (index / n, index % n);
                let products =
                    (0..k).map(|i| f64::from(a[row * k + i]) * f64::from(b[i * n + column]));
                let expected: f64 = products.sum();
                let difference = (f64::from(*found) - expected).abs();
                let what = format!("{unit:?} {m}×{k}×{n} [{index}] is {found}, not {expected}");
                assert!(difference <= 1e-4 * (1.0 + expected.abs()), "{what}");
            }
        }
    }
}

/// The same of convolutions, where a picture in int8 has one scale.
#[test]
fn narrow_convolutions() {
    let mut random = Random(13);
    for round in 0..rounds(60) {
        let most = most(round, 5, [90, 12]);
        let mut shape = Shape {
            batch: 1 + random.below(3),
            groups: 1,
            channels: [1 + random.below(most), 1 + random.below(most)],
            input: [1 + random.below(20), 1 + random.below(20)],
            kernel: [1 + random.below(4), 1 + random.below(4)],
            stride: [1 + random.below(3), 1 + random.below(3)],
            padding: [random.below(3), random.below(3)],
            dilation: [1 + random.below(2), 1 + random.below(2)],
        };
        match random.below(4) {
            0 => {
                // Pixels, which are taken as they lie.
                shape.channels[0] = shape.channels[0].next_multiple_of(64);
                (shape.kernel, shape.stride, shape.padding) = ([1, 1], [1, 1], [0, 0]);
            }
            1 => {
                // What is computed without patches, by sixteens of a row.
                shape.channels[0] = 32 * (1 + random.below(2));
                shape.stride = [1, 1];
                shape.input[1] += 12 + random.below(20);
            }
            2 => {
                // What is computed by squares of pixels.
                shape.channels[0] = 1 + random.below(4);
                shape.kernel = [2 + random.below(6), 2 + random.below(6)];
                shape.padding = [random.below(4), random.below(4)];
                (shape.stride, shape.dilation) = ([2, 2], [1, 1]);
                shape.input[1] += random.below(40);
            }
            _ => {}
        }
        let Some([height, width]) = shape.output() else {
            continue;
        };
        let [inputs, outputs] = shape.channels;
        let pixels = shape.input[0] * shape.input[1];
        let patch = inputs * shape.kernel[0] * shape.kernel[1];
        let input = random.floats(shape.batch * inputs * pixels);
        let raw = random.floats(outputs * patch);
        let scale = random.floats(outputs);
        let scale = (random.below(2) == 1).then_some(&scale[..]);
        let weights = scaled(&raw, scale);
        let bias = random.floats(outputs);
        let bias = (random.below(2) == 1).then_some(&bias[..]);
        let plain = |input: &[f32], weights: &[f32], bias| {
            let found = naive_convolution(&shape, input, weights, bias, None, Activation::None);
            channels_last(&found, outputs, shape.batch)
        };
        let sizes = |values: &[f32]| values.iter().map(|x| x.abs()).collect::<Vec<f32>>();
        let expected = plain(&input, &weights, bias);
        for precision in [Precision::Bf16, Precision::Int8] {
            let (mut of_input, mut of_weights) = (sizes(&input), sizes(&weights));
            let mut fractions = [1.0 / 256.0; 2];
            if precision == Precision::Int8 {
                for picture in of_input.chunks_exact_mut(inputs * pixels) {
                    let most = picture.iter().copied().fold(0.0, f32::max);
                    // A range from the least to the greatest is at most twice as long.
                    picture.fill(2.0 * most);
                }
                for kernel in of_weights.chunks_exact_mut(patch) {
                    let most = kernel.iter().copied().fold(0.0, f32::max);
                    kernel.fill(most);
                }
                fractions = [1.0 / 255.0, 1.0 / 254.0];
            }
            let by_input = plain(&of_input, &sizes(&weights), None);
            let by_weights = plain(&sizes(&input), &of_weights, None);
            let by_both = plain(&of_input, &of_weights, None);
            for unit in Unit::present(precision) {
                let Some(packed) = Weights::narrow(precision, unit, &shape, &raw, scale) else {
                    assert!(matches!(unit, Unit::Widened(_)));
                    continue;
                };
                let last = channels_last(&input, inputs, shape.batch);
                let epilogue = Epilogue {
                    bias,
                    ..Epilogue::default()
                };
                let mut found = vec![f32::NAN; shape.batch * outputs * height * width];
                convolve(&shape, &last, &packed, epilogue, &mut found);
                if packed.takes_bf16() {
                    of_bf16(&mut random, &shape, &last, &packed, bias, &found);
                }
                for (index, found) in found.iter().enumerate() {
                    let allowed = fractions[0] * by_input[index]
                        + fractions[1] * by_weights[index]
                        + fractions[0] * fractions[1] * by_both[index]
                        + 1e-5 * (1.0 + expected[index].abs());
                    let difference = (f64::from(*found) - expected[index]).abs();
                    assert!(
                        difference <= 1.001 * allowed,
                        "{precision:?} {unit:?} {shape:?} [{index}] is {found}, not {}",
                        expected[index]
                    );
                }
            }
        }
    }
}

/// What is not a number stays so, in its rows or columns alone.
#[test]
fn narrow_products_hide_no_nan() {
    let [m, k, n] = [20, 70, 40];
    let mut random = Random(12);
    for (precision, few) in NARROW
        .into_iter()
        .flat_map(|precision| [(precision, true), (precision, false)])
    {
        let m = if few { 3 } else { m };
        let (mut a, mut b) = (random.floats(m * k), random.floats(k * n));
        a[2 * k + 5] = f32::NAN;
        b[7 * n + 33] = f32::NAN;
        let view = View {
            data: Stored::F32(&b),
            shape: [k, n],
            strides: [n, 1],
        };
        for unit in Unit::present(precision) {
            let packed = Narrow::new(precision, unit, view).unwrap();
            let mut found = vec![0.0; m * n];
            let epilogue = Epilogue::default();
            salamander_kernels::narrow::multiply(&a, &packed, epilogue, &mut found);
            for (index, found) in found.iter().enumerate() {
                let expected = index / n == 2 || index % n == 33;
                assert_eq!(found.is_nan(), expected, "{precision:?} {unit:?} [{index}]");
            }
        }
    }
}

/// The bits of the nearest bf16.
fn to_bf16(values: &[f32]) -> Vec<u16> {
    let nearest = |x: f32| ((x.to_bits() + 0x7fff + (x.to_bits() >> 16 & 1)) >> 16) as u16;
    values.iter().copied().map(nearest).collect()
}

/// Compares a convolution of pictures of bf16 with that of the same in f32.
fn of_bf16(
    random: &mut Random,
    shape: &Shape,
    input: &[f32],
    weights: &Weights,
    bias: Option<&[f32]>,
    expected: &[f32],
) {
    let wide = |value: u16| f32::from_bits(u32::from(value) << 16);
    let input = to_bf16(input);
    let residual = to_bf16(&random.floats(expected.len()));
    let input = Numbers::Bf16(&input);
    for residual in [None, Some(&residual[..])] {
        let expected: Vec<f32> = expected
            .iter()
            .enumerate()
            .map(|(at, x)| {
                let added = residual.map_or(0.0, |residual| wide(residual[at]));
                (x + added).max(0.0)
            })
            .collect();
        let residual = residual.map(Numbers::Bf16);
        let mut floats = vec![f32::NAN; expected.len()];
        let mut halves = vec![u16::MAX; expected.len()];
        for out in [NumbersMut::F32(&mut floats), NumbersMut::Bf16(&mut halves)] {
            convolve_bf16(shape, input, weights, bias, residual, Activation::Relu, out);
        }
        let exact: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
        close(&floats, &exact, 1e-5, &format!("{shape:?} from bf16"));
        let halves: Vec<f32> = halves.into_iter().map(wide).collect();
        close(&halves, &exact, 1.0 / 256.0, &format!("{shape:?} to bf16"));
    }
}
