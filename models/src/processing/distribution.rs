//! Distributions that a network gives the parameters of.
//!
//! Reference: `src/transformers/time_series_utils.py` of transformers 5.23, and `torch.distributions`.

use burn::tensor::Tensor;
use libm::{erfc, lgamma};

/// A family of distributions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Student's t, with location and scale.
    StudentT,
    /// The normal distribution.
    Normal,
    /// The negative binomial distribution: counts.
    NegativeBinomial,
}

impl Family {
    /// The names of its parameters, in the order of the projections.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Family::StudentT => &["df", "loc", "scale"],
            Family::Normal => &["loc", "scale"],
            Family::NegativeBinomial => &["total_count", "logits"],
        }
    }

    /// Brings unbounded numbers into the domain of each parameter.
    ///
    /// # Shapes
    /// any, unchanged
    pub fn domain<const D: usize>(self, raw: Vec<Tensor<D>>) -> Vec<Tensor<D>> {
        let names = self.parameters().iter();
        let bounded = names.zip(raw).map(|(name, x)| match *name {
            "df" => squareplus(x) + 2.0,
            "scale" => squareplus(x).clamp_min(f32::EPSILON),
            "total_count" => squareplus(x),
            _ => x,
        });
        bounded.collect()
    }

    /// The distribution with these parameters, in their order, in the units of a series that was scaled by
    /// `scale` after `loc` was subtracted.
    ///
    /// Counts are not moved by `loc`, and scaled by their mean, as in the reference.
    pub fn distribution(self, parameters: &[f64], loc: f64, scale: f64) -> Option<Distribution> {
        Some(match (self, parameters) {
            (Family::StudentT, &[df, middle, spread]) => Distribution::StudentT {
                df,
                loc: middle * scale + loc,
                scale: spread * scale,
            },
            (Family::Normal, &[middle, spread]) => Distribution::Normal {
                loc: middle * scale + loc,
                scale: spread * scale,
            },
            (Family::NegativeBinomial, &[total_count, logits]) => Distribution::NegativeBinomial {
                total_count,
                logits: logits + scale.ln(),
            },
            _ => return None,
        })
    }
}

/// A smooth map to positive numbers.
fn squareplus<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    (x.clone() + (x.square() + 4.0).sqrt()) / 2.0
}

/// The distribution of one value.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Distribution {
    StudentT {
        df: f64,
        loc: f64,
        scale: f64,
    },
    Normal {
        loc: f64,
        scale: f64,
    },
    /// The successes, each of odds `exp(logits)`, before so many failures.
    NegativeBinomial {
        total_count: f64,
        logits: f64,
    },
}

impl Distribution {
    /// The mean; NaN where Student's t has none.
    pub fn mean(&self) -> f64 {
        match *self {
            Distribution::StudentT { df, loc, .. } if df > 1.0 => loc,
            Distribution::StudentT { .. } => f64::NAN,
            Distribution::Normal { loc, .. } => loc,
            Distribution::NegativeBinomial {
                total_count,
                logits,
            } => total_count * logits.exp(),
        }
    }

    /// The probability of a value of at most `x`.
    pub fn cdf(&self, x: f64) -> f64 {
        match *self {
            Distribution::StudentT { df, loc, scale } => {
                let t = (x - loc) / scale;
                let tail = 0.5 * incomplete_beta(df / 2.0, 0.5, df / (df + t * t));
                if t > 0.0 { 1.0 - tail } else { tail }
            }
            Distribution::Normal { loc, scale } => {
                0.5 * erfc(-(x - loc) / (scale * std::f64::consts::SQRT_2))
            }
            Distribution::NegativeBinomial {
                total_count,
                logits,
            } => {
                if x < 0.0 {
                    return 0.0;
                }
                let failure = 1.0 / (1.0 + logits.exp());
                incomplete_beta(total_count, x.floor() + 1.0, failure)
            }
        }
    }

    /// The smallest value that is not exceeded with probability `p`.
    ///
    /// `p` is between 0 and 1; NaN where it is not, or where a parameter is not a number.
    pub fn quantile(&self, p: f64) -> f64 {
        if !(0.0..=1.0).contains(&p) {
            return f64::NAN;
        }
        match *self {
            Distribution::StudentT { loc, scale, .. } | Distribution::Normal { loc, scale } => {
                if !(loc.is_finite() && scale.is_finite()) {
                    return f64::NAN;
                }
                if p == 0.0 || p == 1.0 {
                    return f64::INFINITY * (p - 0.5);
                }
                // By symmetry in the lower half, where probabilities are exact.
                let q = p.min(1.0 - p);
                let standard = match *self {
                    Distribution::StudentT { df, .. } => Distribution::StudentT {
                        df,
                        loc: 0.0,
                        scale: 1.0,
                    },
                    _ => Distribution::Normal {
                        loc: 0.0,
                        scale: 1.0,
                    },
                };
                let mut low = -1.0;
                while standard.cdf(low) > q && low > -1e300 {
                    low *= 2.0;
                }
                let distance = bisect(low, 0.0, |x| standard.cdf(x) >= q);
                let side = if p < 0.5 { 1.0 } else { -1.0 };
                loc + side * distance * scale
            }
            Distribution::NegativeBinomial { .. } => {
                let mean = self.mean();
                if !mean.is_finite() {
                    return f64::NAN;
                }
                if p == 1.0 {
                    return f64::INFINITY;
                }
                let mut high = mean.max(1.0).ceil();
                while self.cdf(high) < p && high < 1e300 {
                    high *= 2.0;
                }
                // Beyond 2⁵³ neighbouring counts are one number.
                let (mut low, mut high) = (-1.0, high);
                while high - low > 1.0_f64.max(high * f64::EPSILON) {
                    let middle = ((low + high) / 2.0).floor();
                    if self.cdf(middle) >= p {
                        high = middle;
                    } else {
                        low = middle;
                    }
                }
                high
            }
        }
    }

    /// A value drawn from it, by two numbers that were drawn evenly from between 0 and 1.
    ///
    /// For Student's t by Bailey, *Polar generation of random variates with the t-distribution*, 1994.
    pub fn sample(&self, uniforms: [f64; 2]) -> f64 {
        // Neither end, where logarithms are infinite.
        let [u, v] = uniforms.map(|uniform| uniform.clamp(1e-16, 1.0 - 1e-16));
        let cosine = (std::f64::consts::TAU * v).cos();
        match *self {
            Distribution::StudentT { df, loc, scale } => {
                let radius = (df * (u.powf(-2.0 / df) - 1.0)).sqrt();
                loc + scale * radius * cosine
            }
            Distribution::Normal { loc, scale } => loc + scale * (-2.0 * u.ln()).sqrt() * cosine,
            Distribution::NegativeBinomial { .. } => self.quantile(u),
        }
    }
}

/// Where between `low` and `high` a condition begins to hold.
fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    // Enough to reach neighbouring numbers from any start.
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high || high - low <= 1e-13 * middle.abs() {
            break;
        }
        if holds(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// The regularized incomplete beta function.
///
/// By Lentz's continued fraction, on the side where it converges quickly.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = lgamma(a + b) - lgamma(a) - lgamma(b) + a * x.ln() + b * (-x).ln_1p();
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut sum = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        sum *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        let step = d * c;
        sum *= step;
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front.exp() * sum / a
}

#[cfg(test)]
mod tests {
    use super::Distribution;

    /// Quantiles by scipy 1.17.
    #[test]
    fn quantiles_are_those_of_the_textbook() {
        let student = |df| Distribution::StudentT {
            df,
            loc: 0.0,
            scale: 1.0,
        };
        let normal = Distribution::Normal {
            loc: 3.0,
            scale: 2.0,
        };
        let counts = |total_count, odds: f64| Distribution::NegativeBinomial {
            total_count,
            logits: odds.ln(),
        };
        for (distribution, p, expected) in [
            (student(2.5), 0.1, -1.730_250_928_807_176),
            (student(2.5), 0.975, 3.574_654_842_003_682),
            (student(30.0), 0.25, -0.682_755_693_321_292_7),
            (student(1e6), 0.975, 1.959_966_356_814_107),
            (normal, 0.9, 5.563_103_131_089_201),
            (normal, 0.5, 3.0),
            (normal, 1e-12, -11.068_967_650_602_263),
            (counts(3.0, 1.0), 0.51, 3.0),
            (counts(3.5, 4.0), 0.9, 25.0),
            (counts(0.2, 0.1), 0.5, 0.0),
        ] {
            let found = distribution.quantile(p);
            assert!(
                (found - expected).abs() < 1e-8 * expected.abs().max(1.0),
                "{distribution:?} at {p}: {found} for {expected}"
            );
        }
    }

    #[test]
    fn samples_are_spread_as_the_quantiles() {
        for distribution in [
            Distribution::StudentT {
                df: 4.0,
                loc: 1.0,
                scale: 2.0,
            },
            Distribution::Normal {
                loc: -1.0,
                scale: 0.5,
            },
            Distribution::NegativeBinomial {
                total_count: 5.0,
                logits: 1.0,
            },
        ] {
            let even = |index: usize| (index as f64 + 0.5) / 100.0;
            let pairs = (0..10_000).map(|index| [even(index % 100), even(index / 100)]);
            let mut samples: Vec<f64> = pairs.map(|pair| distribution.sample(pair)).collect();
            samples.sort_by(f64::total_cmp);
            for p in [0.1, 0.5, 0.9] {
                let found = distribution.cdf(samples[(p * 10_000.0) as usize]);
                let whole = matches!(distribution, Distribution::NegativeBinomial { .. });
                // A count is a step of the distribution.
                let slack = if whole { 0.1 } else { 0.01 };
                assert!(
                    (found - p).abs() < slack,
                    "{distribution:?}: {found} for {p}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let broken = Distribution::StudentT {
            df: f64::NAN,
            loc: f64::NAN,
            scale: 1.0,
        };
        assert!(broken.quantile(0.5).is_nan());
        let odd = Distribution::NegativeBinomial {
            total_count: 1.0,
            logits: f64::INFINITY,
        };
        assert!(odd.quantile(0.5).is_nan());
        assert!(odd.quantile(1.5).is_nan());
    }
}
