//! One pool computes for all tasks. It is a program's, and so this a test program of its own.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::thread;

use salamander::tasks::TextClassification;
use salamander::{Device, set_threads};

/// The threads of this process, where `/proc` tells.
fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

#[test]
fn several_tasks_share_the_threads_that_were_asked_for() {
    assert!(set_threads(0).is_err());
    set_threads(3).unwrap();
    let device = Device::from_env().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/sentiment");
    let classify = TextClassification::open(model, &device).unwrap();
    let text = "a warm, funny, engaging film ".repeat(40);
    let expected = classify.run(&text).unwrap();
    let before = threads();
    const CALLERS: usize = 6;
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let found = classify.run(&text).unwrap();
                        assert_eq!(found[0].name, expected[0].name);
                        assert!((found[0].score - expected[0].score).abs() < 1e-5);
                    }
                    threads()
                })
            })
            .collect();
        for caller in callers {
            let during = caller.join().unwrap();
            assert!(
                during <= before.map(|count| count + CALLERS),
                "{during:?} threads, where there were {before:?} before {CALLERS} callers came"
            );
        }
    });
    let error = set_threads(2).unwrap_err().to_string();
    assert!(error.contains("before the first model"), "{error}");
}
