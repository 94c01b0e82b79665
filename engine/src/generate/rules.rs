//! What a Whisper may say next.
//!
//! Reference: `RepetitionPenaltyLogitsProcessor`, `NoRepeatNGramLogitsProcessor`, `SuppressTokensLogitsProcessor`, `SuppressTokensAtBeginLogitsProcessor` and
//! `WhisperTimeStampLogitsProcessor` of transformers 5.23, in the order in which `generate` applies them.

use std::collections::BTreeSet;

/// Rules on the logits of the next token.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// By how much a token that stands there already is less likely; 1 for nothing.
    pub(super) repetition_penalty: f32,
    /// How many tokens in a row do not come twice; 0 for any.
    pub(super) no_repeat_ngram_size: usize,
    pub(super) suppressed: Vec<u32>,
    pub(super) suppressed_at_begin: Vec<u32>,
    pub(super) timestamps: Option<TimestampRules>,
}

/// Timestamps come in pairs and do not go back.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimestampRules {
    /// `<|notimestamps|>`, after which the timestamps follow.
    pub(super) none: u32,
    pub(super) end_of_text: u32,
    pub(super) latest_first: Option<u32>,
}

const NEVER: f32 = f32::NEG_INFINITY;

impl Rules {
    /// Forbids tokens after a prompt and what was generated so far.
    pub(super) fn apply(&self, prompt: &[u32], generated: &[u32], scores: &mut [f32]) {
        if self.repetition_penalty != 1.0 || self.no_repeat_ngram_size > 0 {
            let before = [prompt, generated].concat();
            self.penalize(&before, scores);
            self.forbid_repeated(&before, scores);
        }
        if generated.is_empty() {
            forbid(scores, &self.suppressed_at_begin);
        }
        forbid(scores, &self.suppressed);
        if let Some(rules) = self.timestamps {
            rules.apply(generated, scores);
        }
    }
}

impl Rules {
    fn penalize(&self, before: &[u32], scores: &mut [f32]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let once: BTreeSet<u32> = before.iter().copied().collect();
        for token in once {
            if let Some(score) = scores.get_mut(token as usize) {
                if *score < 0.0 {
                    *score *= self.repetition_penalty;
                } else {
                    *score /= self.repetition_penalty;
                }
            }
        }
    }

    /// Forbids what would make a group of tokens that was there before.
    fn forbid_repeated(&self, before: &[u32], scores: &mut [f32]) {
        let size = self.no_repeat_ngram_size;
        if size == 0 || before.len() + 1 < size {
            return;
        }
        let last = &before[before.len() + 1 - size..];
        for group in before.windows(size) {
            if let Some((next, first)) = group.split_last()
                && first == last
            {
                forbid(scores, &[*next]);
            }
        }
    }
}

fn forbid(scores: &mut [f32], tokens: &[u32]) {
    for &token in tokens {
        if let Some(score) = scores.get_mut(token as usize) {
            *score = NEVER;
        }
    }
}

impl TimestampRules {
    fn apply(self, generated: &[u32], scores: &mut [f32]) {
        forbid(scores, &[self.none]);
        let size = scores.len();
        let first = (self.none as usize + 1).min(size);
        let is_time = |token: &u32| *token as usize >= first;
        let last_was = generated.last().is_some_and(is_time);
        let one_before_was = generated.len() < 2 || is_time(&generated[generated.len() - 2]);
        if last_was {
            let forbidden = if one_before_was {
                first..size
            } else {
                0..(self.end_of_text as usize).min(size)
            };
            scores[forbidden].fill(NEVER);
        }
        if let Some(latest) = generated.iter().rev().find(|token| is_time(token)) {
            // The second of a pair may repeat the first; later ones may not.
            let open = last_was && !one_before_was;
            let earliest = *latest as usize + usize::from(!open);
            scores[first..earliest.clamp(first, size)].fill(NEVER);
        }
        if generated.is_empty() {
            scores[..first].fill(NEVER);
            if let Some(latest) = self.latest_first {
                let beyond = first.saturating_add(latest as usize + 1).min(size);
                scores[beyond..].fill(NEVER);
            }
        }
        // When time is likelier than any one word, it is time.
        let (text, times) = scores.split_at_mut(first);
        let highest = |values: &[f32]| values.iter().copied().fold(NEVER, f32::max);
        let peak = highest(times);
        if peak > NEVER {
            let sum: f32 = times.iter().map(|score| (score - peak).exp()).sum();
            if peak + sum.ln() > highest(text) {
                text.fill(NEVER);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Rules, TimestampRules};

    /// Tokens: 0 to 2 text, 3 the end, 4 `<|notimestamps|>`, 5 to 8 times.
    fn allowed(generated: &[u32], scores: [f32; 9]) -> Vec<usize> {
        let rules = Rules {
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            suppressed: vec![1],
            suppressed_at_begin: vec![3],
            timestamps: Some(TimestampRules {
                none: 4,
                end_of_text: 3,
                latest_first: Some(1),
            }),
        };
        let mut scores = scores;
        rules.apply(&[], generated, &mut scores);
        (0..9).filter(|&token| scores[token].is_finite()).collect()
    }

    #[test]
    fn times_come_in_pairs_and_do_not_go_back() {
        let text = [9.0, 9.0, 9.0, 9.0, 9.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(allowed(&[], text), [5, 6]);
        assert_eq!(allowed(&[6], text), [0, 2, 3]);
        assert_eq!(allowed(&[6, 0], text), [0, 2, 3, 7, 8]);
        assert_eq!(allowed(&[6, 0, 7], text), [3, 7, 8]);
        assert_eq!(allowed(&[6, 0, 7, 7], text), [0, 2, 3]);
        let times = [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5];
        assert_eq!(allowed(&[6, 0], times), [7, 8]);
    }

    #[test]
    fn what_was_there_is_less_likely_or_forbidden() {
        let rules = |penalty, size| Rules {
            repetition_penalty: penalty,
            no_repeat_ngram_size: size,
            suppressed: Vec::new(),
            suppressed_at_begin: Vec::new(),
            timestamps: None,
        };
        let after = |rules: Rules, prompt: &[u32], generated: &[u32]| {
            let mut scores = [3.0, -3.0, 3.0, -3.0];
            rules.apply(prompt, generated, &mut scores);
            scores
        };
        // Once for a token, however often it came; positive scores shrink, negative ones grow.
        assert_eq!(
            after(rules(1.5, 0), &[0], &[1, 1, 9]),
            [2.0, -4.5, 3.0, -3.0]
        );
        let never = f32::NEG_INFINITY;
        assert_eq!(
            after(rules(1.0, 2), &[0, 1], &[2, 0]),
            [3.0, never, 3.0, -3.0]
        );
        assert_eq!(
            after(rules(1.0, 3), &[0, 1], &[2, 0]),
            [3.0, -3.0, 3.0, -3.0]
        );
        assert_eq!(
            after(rules(1.0, 3), &[0, 1, 2], &[0, 1]),
            [3.0, -3.0, never, -3.0]
        );
        assert_eq!(after(rules(1.0, 1), &[3], &[2]), [3.0, -3.0, never, never]);
        assert_eq!(after(rules(1.0, 4), &[0], &[0]), [3.0, -3.0, 3.0, -3.0]);
    }
}
