//! What stands for missing values.

use std::str::FromStr;

/// What stands for the missing values of a series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Missing {
    /// A straight line between the nearest values; before the first and after the last the nearest value.
    #[default]
    Interpolate,
    /// The last value before, or the first one where there is none.
    Last,
    /// The mean of the values that the model sees.
    Mean,
    /// Zero.
    Zero,
    /// The model is told which values are missing, and does with them as it was trained to.
    Mask,
    /// They are an error.
    Refuse,
}

impl Missing {
    /// All of them, by name.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("interpolate", Missing::Interpolate),
        ("last", Missing::Last),
        ("mean", Missing::Mean),
        ("zero", Missing::Zero),
        ("mask", Missing::Mask),
        ("refuse", Missing::Refuse),
    ];
}

impl FromStr for Missing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, missing)| *missing).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("is not one of {}", names.join(", "))
        })
    }
}

/// The value that a series had so many steps before the first of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Earlier {
    /// The steps, from 1 on.
    pub steps: f64,
    /// The value.
    pub value: f64,
}

/// Fills the NaNs of one series in a window; gives how many there were.
///
/// The window is row-major: the series' values are every `width`th from `column` on. Nothing is filled
/// where there is no value at all, nor with [`Missing::Mask`] and [`Missing::Refuse`].
pub fn fill(
    window: &mut [f64],
    width: usize,
    column: usize,
    earlier: Option<Earlier>,
    missing: Missing,
) -> usize {
    let at = |step: usize| step * width + column;
    let steps = window.len() / width.max(1);
    let observed: Vec<usize> = (0..steps)
        .filter(|step| !window[at(*step)].is_nan())
        .collect();
    let count = steps - observed.len();
    let (Some(&first), Some(&last)) = (observed.first(), observed.last()) else {
        return count;
    };
    if count == 0 || matches!(missing, Missing::Mask | Missing::Refuse) {
        return count;
    }
    if matches!(missing, Missing::Mean | Missing::Zero) {
        let offset = window[at(first)];
        let value = match missing {
            Missing::Mean => {
                // Around the first, so that large values lose nothing and do not overflow.
                let total: f64 = observed
                    .iter()
                    .map(|step| window[at(*step)] / 2.0 - offset / 2.0)
                    .sum();
                offset + 2.0 * (total / observed.len() as f64)
            }
            _ => 0.0,
        };
        for step in 0..steps {
            if window[at(step)].is_nan() {
                window[at(step)] = value;
            }
        }
        return count;
    }
    let linear = missing == Missing::Interpolate;
    for step in 0..first {
        let value = window[at(first)];
        window[at(step)] = match earlier {
            None => value,
            Some(earlier) if linear => {
                let part = (step as f64 + earlier.steps) / (first as f64 + earlier.steps);
                between(earlier.value, value, part)
            }
            Some(earlier) => earlier.value,
        };
    }
    for pair in observed.windows(2) {
        let (low, high) = (window[at(pair[0])], window[at(pair[1])]);
        for step in pair[0] + 1..pair[1] {
            let part = (step - pair[0]) as f64 / (pair[1] - pair[0]) as f64;
            window[at(step)] = if linear {
                between(low, high, part)
            } else {
                low
            };
        }
    }
    for step in last + 1..steps {
        window[at(step)] = window[at(last)];
    }
    count
}

fn between(low: f64, high: f64, part: f64) -> f64 {
    low * (1.0 - part) + high * part
}

#[cfg(test)]
mod tests {
    use super::{Earlier, Missing, fill};

    #[test]
    fn each_way_fills_as_it_says() {
        let gaps = [f64::NAN, 2.0, f64::NAN, f64::NAN, 8.0, f64::NAN];
        let earlier = Some(Earlier {
            steps: 3.0,
            value: -2.0,
        });
        for (missing, earlier, expected) in [
            (Missing::Interpolate, None, [2.0, 2.0, 4.0, 6.0, 8.0, 8.0]),
            (
                Missing::Interpolate,
                earlier,
                [1.0, 2.0, 4.0, 6.0, 8.0, 8.0],
            ),
            (Missing::Last, None, [2.0, 2.0, 2.0, 2.0, 8.0, 8.0]),
            (Missing::Last, earlier, [-2.0, 2.0, 2.0, 2.0, 8.0, 8.0]),
            (Missing::Mean, None, [5.0, 2.0, 5.0, 5.0, 8.0, 5.0]),
            (Missing::Zero, None, [0.0, 2.0, 0.0, 0.0, 8.0, 0.0]),
        ] {
            // The second of two series.
            let mut window: Vec<f64> = gaps.iter().flat_map(|gap| [f64::NAN, *gap]).collect();
            assert_eq!(fill(&mut window, 2, 1, earlier, missing), 4);
            let filled: Vec<f64> = window.iter().skip(1).step_by(2).copied().collect();
            for (found, expected) in filled.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{missing:?}: {filled:?}");
            }
            assert!(window.iter().step_by(2).all(|value| value.is_nan()));
        }
        for missing in [Missing::Mask, Missing::Refuse] {
            let mut window = gaps;
            assert_eq!(fill(&mut window, 1, 0, None, missing), 4);
            assert!(window[2].is_nan());
        }
    }

    #[test]
    fn names_are_read() {
        assert_eq!("last".parse(), Ok(Missing::Last));
        assert!(
            "ffill"
                .parse::<Missing>()
                .unwrap_err()
                .contains("interpolate, last")
        );
    }
}
