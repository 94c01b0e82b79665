//! Where in a recording each token is spoken, by what the decoder looked at.
//!
//! Reference: `_extract_token_timestamps`, `_median_filter` and `_dynamic_time_warping` of transformers
//! 5.23; `median_filter` and `dtw` of openai-whisper 20250625 give the same numbers.

use std::cmp::Ordering;

/// Attention weights of some heads, head by head: a row a token, a column a position.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Weights {
    pub(super) values: Vec<f32>,
    pub(super) heads: usize,
    pub(super) tokens: usize,
    pub(super) positions: usize,
}

impl Weights {
    /// The position at which each token begins; `width` is that of the median filter, odd.
    pub(super) fn align(mut self, width: usize) -> Vec<usize> {
        let (tokens, positions) = (self.tokens, self.positions);
        if tokens * positions == 0 {
            return vec![0; tokens];
        }
        let mut mean = vec![0.0; tokens * positions];
        for head in self.values.chunks_exact_mut(tokens * positions) {
            normalize(head, positions);
            for (row, mean) in head
                .chunks_exact(positions)
                .zip(mean.chunks_exact_mut(positions))
            {
                for (mean, value) in mean.iter_mut().zip(median_filter(row, width)) {
                    *mean += value;
                }
            }
        }
        // The path is the cheapest, and looking costs less the more of it there is.
        let cost: Vec<f32> = mean.iter().map(|sum| -sum / self.heads as f32).collect();
        dynamic_time_warping(&cost, positions)
    }
}

/// Brings every column to a mean of 0 and a standard deviation of 1.
fn normalize(matrix: &mut [f32], columns: usize) {
    let rows = (matrix.len() / columns) as f64;
    for column in 0..columns {
        let values = || matrix.iter().skip(column).step_by(columns);
        let mean = values().map(|v| f64::from(*v)).sum::<f64>() / rows;
        let squares = values().map(|v| (f64::from(*v) - mean).powi(2));
        let deviation = (squares.sum::<f64>() / rows).sqrt();
        for value in matrix.iter_mut().skip(column).step_by(columns) {
            // Of equal values nothing is known: 0 / 0, as in the reference.
            *value = ((f64::from(*value) - mean) / deviation) as f32;
        }
    }
}

/// The median of the `width` values around each; at the ends the row is reflected.
fn median_filter(row: &[f32], width: usize) -> Vec<f32> {
    let reach = width / 2;
    if row.len() <= reach {
        return row.to_vec();
    }
    let last = row.len() as i64 - 1;
    let mut window = vec![0.0; width];
    let median = |centre: usize| {
        let around = (centre as i64 - reach as i64)..;
        for (slot, index) in window.iter_mut().zip(around) {
            let index = index.abs();
            *slot = row[(last - (last - index).abs()) as usize];
        }
        let (_, median, _) = window.select_nth_unstable_by(reach, by_value);
        *median
    };
    (0..row.len()).map(median).collect()
}

/// What is no number comes last, whatever its sign.
fn by_value(a: &f32, b: &f32) -> Ordering {
    let numbers = a.partial_cmp(b);
    numbers.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The column at which the cheapest path through a matrix of costs enters each row.
///
/// A path goes from the first corner to the last by a step down, to the right, or both at once.
fn dynamic_time_warping(costs: &[f32], columns: usize) -> Vec<usize> {
    const BOTH: u8 = 0;
    const DOWN: u8 = 1;
    const RIGHT: u8 = 2;
    let rows = costs.len() / columns;
    let mut steps = vec![RIGHT; rows * columns];
    // The costs up to the column before and up to this one, with a row before the first.
    let mut before = vec![f32::INFINITY; rows + 1];
    before[0] = 0.0;
    for column in 0..columns {
        let mut here = vec![f32::INFINITY; rows + 1];
        for row in 0..rows {
            let (both, down, right) = (before[row], here[row], before[row + 1]);
            // To the right among equals, and where something is no number.
            let (cost, step) = if both < down && both < right {
                (both, BOTH)
            } else if down < both && down < right {
                (down, DOWN)
            } else {
                (right, RIGHT)
            };
            here[row + 1] = costs[row * columns + column] + cost;
            steps[row * columns + column] = step;
        }
        before = here;
    }
    let mut entered = vec![0; rows];
    let (mut row, mut column) = (rows, columns);
    while row > 0 && column > 0 {
        entered[row - 1] = column - 1;
        match steps[(row - 1) * columns + column - 1] {
            BOTH => {
                row -= 1;
                column -= 1;
            }
            DOWN => row -= 1,
            _ => column -= 1,
        }
    }
    entered
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::{Weights, dynamic_time_warping, median_filter};

    fn cases(name: &str) -> Vec<Value> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/fixtures/whisper_words/alignment.json");
        let json: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        json[name].as_array().unwrap().clone()
    }

    fn floats(value: &Value) -> Vec<f32> {
        let list = value.as_array().unwrap().iter();
        list.map(|value| value.as_f64().map_or(f32::NAN, |value| value as f32))
            .collect()
    }

    fn indices(value: &Value) -> Vec<usize> {
        let list = value.as_array().unwrap().iter();
        list.map(|value| value.as_u64().unwrap() as usize).collect()
    }

    #[test]
    fn medians_are_the_references() {
        for case in cases("median_filter") {
            let width = case["width"].as_u64().unwrap() as usize;
            let found = median_filter(&floats(&case["row"]), width);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&floats(&case["filtered"])), "{case}");
        }
    }

    #[test]
    fn paths_are_the_references() {
        for case in cases("dynamic_time_warping") {
            let columns = case["columns"].as_u64().unwrap() as usize;
            let found = dynamic_time_warping(&floats(&case["costs"]), columns);
            assert_eq!(found, indices(&case["entered"]), "{case}");
        }
    }

    #[test]
    fn positions_of_tokens_are_the_references() {
        for case in cases("align") {
            let [heads, tokens, positions] = indices(&case["shape"])[..] else {
                panic!("{case}");
            };
            let weights = Weights {
                values: floats(&case["weights"]),
                heads,
                tokens,
                positions,
            };
            assert_eq!(weights.align(7), indices(&case["entered"]), "{case}");
        }
    }

    #[test]
    fn nothing_to_look_at_is_the_beginning() {
        let weights = |tokens, positions| Weights {
            values: Vec::new(),
            heads: 2,
            tokens,
            positions,
        };
        assert_eq!(weights(3, 0).align(7), [0, 0, 0]);
        assert_eq!(weights(0, 5).align(7), [0; 0]);
    }
}
