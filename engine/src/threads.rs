use crate::Error;

/// Sets how many threads this program computes with on the CPU, all models together: one pool serves them,
/// however many tasks run at once.
///
/// By default they are as many as `RAYON_NUM_THREADS` says, else as the CPU has. The pool is rayon's global
/// one, so that an application's own work on it shares the threads.
///
/// # Errors
/// The count is zero, or the pool has been used or set already.
pub fn set_threads(count: usize) -> Result<(), Error> {
    let refuse = |reason: String| Error::Option {
        name: "threads",
        reason,
    };
    if count == 0 {
        return Err(refuse("is zero; at least one thread computes".to_owned()));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count);
    pool.build_global().map_err(|_| {
        refuse(
            "is set too late: the pool is there already; set it before the first model".to_owned(),
        )
    })
}
