//! The threads that kernels compute on, which are rayon's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A thread that finds no work for this long goes to sleep.
const PATIENCE: Duration = Duration::from_millis(2);

/// Runs `work`, a forward pass for example, on one of the threads and keeps the others awake for it.
///
/// A kernel takes a fraction of a millisecond, and waking a thread for it up to a tenth of one. While one such
/// work is under way, other callers' stays on their own threads: a thread that waits for a kernel would begin it
/// otherwise, one inside the other, as deep as there are callers.
pub fn awake<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    static BUSY: AtomicBool = AtomicBool::new(false);
    let threads = rayon::current_num_threads();
    if threads == 1 || BUSY.swap(true, Ordering::AcqRel) {
        return work();
    }
    let _free = Free(&BUSY);
    rayon::scope(|_| {
        let done = Done(Arc::default());
        for _ in 1..threads {
            let done = Arc::clone(&done.0);
            // Not of the scope: a thread that has found other work is not waited for.
            rayon::spawn(move || wait(&done));
        }
        work()
    })
}

/// Clears its flag when it goes, be it by a panic.
struct Free(&'static AtomicBool);

impl Drop for Free {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Sets its flag when it goes, likewise.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Does what work there is until `done`.
fn wait(done: &AtomicBool) {
    let mut idle = Instant::now();
    while !done.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            idle = Instant::now();
        } else if idle.elapsed() > PATIENCE {
            return;
        } else {
            (0..32).for_each(|_| std::hint::spin_loop());
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::awake;

    #[test]
    fn work_in_work_is_done() {
        let sum = || (0..1000_u64).into_par_iter().sum::<u64>();
        let sums = awake(|| [sum(), awake(sum)]);
        assert_eq!(sums, [499_500; 2]);
    }

    #[test]
    fn many_callers_do_not_nest() {
        let sum = || (0..1000_u64).into_par_iter().sum::<u64>();
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..64).map(|_| scope.spawn(|| awake(sum))).collect();
            for caller in callers {
                assert_eq!(caller.join().unwrap(), 499_500);
            }
        });
    }

    #[test]
    fn a_panic_comes_through() {
        let caught = std::panic::catch_unwind(|| awake(|| std::panic::panic_any("lost")));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"lost"));
    }
}
