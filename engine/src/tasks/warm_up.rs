//! What is done ahead of the first answer.

use std::time::Duration;

use crate::Error;
use crate::clock::Instant;

/// Runs a task twice, and says how long that took: GPUs compile and tune when a shape is new to them, and on the CPU
/// weights are packed when they are used again.
pub(super) fn warm_up(run: impl Fn() -> Result<(), Error>) -> Result<Duration, Error> {
    let begin = Instant::now();
    run()?;
    run()?;
    Ok(begin.elapsed())
}
