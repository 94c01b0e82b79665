//! From logits to scores, in the reference's precision.

/// Turns logits into probabilities that sum to 1.
pub(super) fn softmax(logits: &mut [f32]) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for logit in logits.iter_mut() {
        *logit = (*logit - highest).exp();
        sum += *logit;
    }
    for logit in logits {
        *logit /= sum;
    }
}

/// Turns each logit into a probability of its own.
pub(super) fn sigmoid(logits: &mut [f32]) {
    for logit in logits {
        *logit = 1.0 / (1.0 + (-*logit).exp());
    }
}

/// The index of the largest value, the first among equals; 0 of nothing.
pub(super) fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// The indices of the `count` largest values, largest first, the earlier among equals first.
pub(super) fn top(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let by_score = |a: &usize, b: &usize| values[*b].total_cmp(&values[*a]).then(a.cmp(b));
    if count < order.len() {
        order.select_nth_unstable_by(count, by_score);
        order.truncate(count);
    }
    order.sort_by(by_score);
    order
}

#[cfg(test)]
mod tests {
    use super::{argmax, softmax, top};

    #[test]
    fn ties_go_to_the_earlier() {
        let values = [0.5, 2.0, -1.0, 2.0, 0.5];
        assert_eq!(argmax(&values), 1);
        assert_eq!(top(&values, 3), [1, 3, 0]);
        assert_eq!(top(&values, 9), [1, 3, 0, 4, 2]);
        assert_eq!(top(&values, 0), [0; 0]);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let mut values = [1000.0, 999.0];
        softmax(&mut values);
        assert!((values[0] - 0.731_058_6).abs() < 1e-6);
    }
}
