//! Greedy, sampled and beam search over a decoder.
//!
//! Reference: `GenerationMixin._sample` and `_beam_search` of transformers 5.23.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

use super::rules::Rules;
use crate::Error;

/// A decoder that remembers what it was fed.
pub(super) trait Steps {
    /// Feeds each row's next tokens, all of one length, and gives the logits after the last of each.
    fn step(&mut self, rows: &[&[u32]]) -> Result<Vec<f32>, Error>;

    /// Row `i` goes on from what row `parents[i]` was.
    fn reorder(&mut self, parents: &[usize]);
}

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SearchOptions {
    pub(crate) beams: usize,
    pub(crate) length_penalty: f32,
    pub(crate) early_stopping: bool,
    pub(crate) top_k: usize,
    /// Tokens are drawn from the likeliest that make up this much together; 1 for all.
    pub(crate) top_p: f32,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Found {
    /// With the token that ends a text, if it came.
    pub(super) tokens: Vec<u32>,
    /// The mean of the tokens' log-probabilities under the rules.
    pub(super) mean_logprob: f32,
}

/// Turns scores into log-probabilities.
fn log_softmax(scores: &mut [f32]) {
    let peak = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if peak == f32::NEG_INFINITY {
        return;
    }
    let sum: f32 = scores.iter().map(|score| (score - peak).exp()).sum();
    let shift = peak + sum.ln();
    for score in scores {
        *score -= shift;
    }
}

/// The log-probability of one token under scores that need not sum to one.
fn logprob(scores: &[f32], token: usize) -> f32 {
    let mut scores = scores.to_vec();
    log_softmax(&mut scores);
    scores[token]
}

fn argmax(scores: &[f32]) -> usize {
    let mut best = 0;
    for (token, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = token;
        }
    }
    best
}

/// For each row the likeliest token at each step, or at a `temperature` above 0 one drawn by its probability.
///
/// The rows' prompts are of one length. A row that has ended is fed its end until all have ended.
#[allow(clippy::too_many_arguments)]
pub(super) fn sample(
    decoder: &mut dyn Steps,
    prompts: &[&[u32]],
    rules: &Rules,
    end: u32,
    room: usize,
    temperature: f32,
    options: &SearchOptions,
    random: &mut [ChaCha8Rng],
) -> Result<Vec<Found>, Error> {
    let mut found: Vec<Found> = prompts.iter().map(|_| Found::default()).collect();
    let ended = |row: &Found| row.tokens.last() == Some(&end);
    for _ in 0..room {
        if found.iter().all(ended) {
            break;
        }
        let fed = found.iter().zip(prompts);
        let fed: Vec<&[u32]> = fed
            .map(|(row, prompt)| match row.tokens.last() {
                None => prompt,
                Some(last) => std::slice::from_ref(last),
            })
            .collect();
        let mut scores = decoder.step(&fed)?;
        let size = (scores.len() / prompts.len().max(1)).max(1);
        let rows = scores
            .chunks_exact_mut(size)
            .zip(&mut found)
            .zip(&mut *random)
            .zip(prompts);
        for (((scores, row), random), prompt) in rows.filter(|(((_, row), _), _)| !ended(row)) {
            rules.apply(prompt, &row.tokens, scores);
            let token = if temperature > 0.0 {
                keep_top(scores, options.top_k);
                keep_likely(scores, temperature, options.top_p);
                draw(scores, temperature, random)
            } else {
                argmax(scores)
            };
            // Until the end, their sum.
            row.mean_logprob += logprob(scores, token);
            row.tokens.push(token as u32);
        }
    }
    for row in &mut found {
        row.mean_logprob /= row.tokens.len().max(1) as f32;
    }
    Ok(found)
}

/// Forbids all but the `count` best; all that equal the last of them stay.
fn keep_top(scores: &mut [f32], count: usize) {
    if count == 0 || count >= scores.len() {
        return;
    }
    let mut sorted = scores.to_vec();
    let (_, least, _) = sorted.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    let least = *least;
    for score in scores {
        if *score < least {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// Forbids the least likely tokens that make up no more than `1 - share` together, but not the likeliest.
fn keep_likely(scores: &mut [f32], temperature: f32, share: f32) {
    if share >= 1.0 {
        return;
    }
    let mut heated: Vec<f32> = scores.iter().map(|score| score / temperature).collect();
    log_softmax(&mut heated);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| heated[*a].total_cmp(&heated[*b]));
    order.pop();
    let mut sum = 0.0;
    for token in order {
        sum += heated[token].exp();
        if sum > 1.0 - share {
            break;
        }
        scores[token] = f32::NEG_INFINITY;
    }
}

fn draw(scores: &[f32], temperature: f32, random: &mut ChaCha8Rng) -> usize {
    let mut heated: Vec<f32> = scores.iter().map(|score| score / temperature).collect();
    log_softmax(&mut heated);
    // 53 bits, evenly in [0, 1).
    let mut rest = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut last = argmax(scores);
    for (token, score) in heated.iter().enumerate() {
        let probability = f64::from(score.exp());
        if probability > 0.0 {
            last = token;
            if rest < probability {
                return token;
            }
            rest -= probability;
        }
    }
    last
}

/// What stands for "not to be chosen" among scores that are compared.
const OUT: f32 = -1.0e9;

#[derive(Clone)]
struct Beam {
    tokens: Vec<u32>,
    /// The sum of log-probabilities by which beams are compared.
    score: f32,
    /// The sum of those under the rules.
    sum: f32,
    parent: usize,
}

struct Hypothesis {
    beam: Option<Beam>,
    score: f32,
}

/// The indices of the `count` largest scores, largest first, the earlier among equals first.
fn top(scores: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let by_score = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    let count = count.min(order.len());
    if count < order.len() {
        order.select_nth_unstable_by(count, by_score);
        order.truncate(count);
    }
    order.sort_by(by_score);
    order
}

/// The best of several sequences that grow side by side.
pub(super) fn beam_search(
    decoder: &mut dyn Steps,
    prompt: &[u32],
    rules: &Rules,
    end: u32,
    room: usize,
    options: &SearchOptions,
) -> Result<Found, Error> {
    let beams = options.beams;
    let mut running: Vec<Beam> = (0..beams)
        .map(|index| Beam {
            tokens: Vec::new(),
            // All rows begin alike, so that only the first may lead at first.
            score: if index == 0 { 0.0 } else { OUT },
            sum: 0.0,
            parent: index,
        })
        .collect();
    let mut finished: Vec<Hypothesis> = (0..beams)
        .map(|_| Hypothesis {
            beam: None,
            score: OUT,
        })
        .collect();
    let mut improvable = true;
    for length in 1..=room {
        let fed: Vec<&[u32]> = running
            .iter()
            .map(|beam| match beam.tokens.last() {
                None => prompt,
                Some(last) => std::slice::from_ref(last),
            })
            .collect();
        let mut scores = decoder.step(&fed)?;
        let size = scores.len() / beams;
        let mut total = scores.clone();
        for (row, beam) in running.iter().enumerate() {
            let range = row * size..(row + 1) * size;
            log_softmax(&mut scores[range.clone()]);
            rules.apply(prompt, &beam.tokens, &mut scores[range.clone()]);
            for (total, score) in total[range.clone()].iter_mut().zip(&scores[range]) {
                *total = score + beam.score;
            }
        }
        let candidates: Vec<Beam> = top(&total, 2 * beams)
            .into_iter()
            .map(|index| {
                let (row, token) = (index / size, index % size);
                let own = &scores[row * size..(row + 1) * size];
                let mut tokens = running[row].tokens.clone();
                tokens.push(token as u32);
                Beam {
                    tokens,
                    score: total[index],
                    sum: running[row].sum + logprob(own, token),
                    parent: row,
                }
            })
            .collect();
        let ends: Vec<bool> = candidates
            .iter()
            .map(|beam| length == room || beam.tokens.last() == Some(&end))
            .collect();

        let going: Vec<f32> = candidates
            .iter()
            .zip(&ends)
            .map(|(beam, ends)| beam.score + if *ends { OUT } else { 0.0 })
            .collect();
        running = top(&going, beams)
            .into_iter()
            .map(|index| Beam {
                score: going[index],
                ..candidates[index].clone()
            })
            .collect();

        let full = options.early_stopping && finished.iter().all(|h| h.beam.is_some());
        let penalty = (length as f32).powf(options.length_penalty);
        for (index, beam) in candidates.into_iter().enumerate() {
            let mut score = beam.score / penalty;
            let done = ends[index] && index < beams;
            for out in [full, !improvable, !done] {
                score += if out { OUT } else { 0.0 };
            }
            finished.push(Hypothesis {
                beam: done.then_some(beam),
                score,
            });
        }
        // Stable, so that the earlier among equals stays first.
        finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        finished.truncate(beams);

        let parents: Vec<usize> = running.iter().map(|beam| beam.parent).collect();
        decoder.reorder(&parents);

        let best = running[0].score / (length as f32).powf(options.length_penalty);
        let worst = finished
            .iter()
            .map(|h| h.score)
            .fold(f32::INFINITY, f32::min);
        improvable &= finished
            .iter()
            .any(|h| best > if h.beam.is_some() { worst } else { OUT });
        let full = options.early_stopping && finished.iter().all(|h| h.beam.is_some());
        if !improvable || full || ends.iter().all(|ends| *ends) {
            break;
        }
    }
    let best = finished.into_iter().find_map(|hypothesis| hypothesis.beam);
    let (tokens, sum) = best.map_or((Vec::new(), 0.0), |beam| (beam.tokens, beam.sum));
    Ok(Found {
        mean_logprob: sum / tokens.len().max(1) as f32,
        tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::keep_likely;

    #[test]
    fn tokens_are_drawn_from_the_likeliest() {
        // Of ½, ¼, ⅛ and ⅛.
        let kept = |share| {
            let mut scores = [0.125_f32, 0.5, 0.125, 0.25].map(f32::ln);
            keep_likely(&mut scores, 1.0, share);
            (0..4)
                .filter(|&token| scores[token].is_finite())
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(1.0), [0, 1, 2, 3]);
        assert_eq!(kept(0.8), [1, 2, 3]);
        assert_eq!(kept(0.7), [1, 3]);
        assert_eq!(kept(0.3), [1]);
        assert_eq!(kept(0.0), [1]);
    }
}
