//! How fast a file comes, beside curl. Run it alone: `cargo test -p salamander-hub --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod server;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use salamander_hub::Hub;
use server::{MAIN, Server};

#[test]
#[ignore = "a measurement"]
fn a_file_comes_about_as_fast_as_with_curl() {
    let length = 512 << 20;
    let block = server::noise(1 << 20, 1);
    let weights: Vec<u8> = block.iter().copied().cycle().take(length).collect();
    let server = Server::new(&[
        ("config.json", &b"{}"[..]),
        ("model.safetensors", &weights[..]),
    ]);
    let directory = tempfile::tempdir().unwrap();
    let rate = |time: Duration| length as f64 / 1e6 / time.as_secs_f64();
    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    for round in 0..5 {
        let file = directory.path().join("curl");
        let url = format!(
            "{}/storage/owner/name/{MAIN}/model.safetensors",
            server.endpoint
        );
        let begin = Instant::now();
        let status = Command::new("curl")
            .args([
                "--silent",
                "--noproxy",
                "*",
                "--output",
                file.to_str().unwrap(),
                &url,
            ])
            .status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no curl");
            return;
        }
        theirs = theirs.min(begin.elapsed());
        fs::remove_file(&file).unwrap();

        let mut hub = Hub::new(directory.path().join("cache"));
        hub.endpoint = server.endpoint.clone();
        let begin = Instant::now();
        hub.fetch("owner/name").unwrap();
        ours = ours.min(begin.elapsed());
        let begin = Instant::now();
        hub.fetch("owner/name").unwrap();
        let cached = begin.elapsed();
        hub.remove("owner/name").unwrap();
        eprintln!(
            "round {round}: curl {:.0} MB/s, ours {:.0} MB/s, cached {cached:?}",
            rate(theirs),
            rate(ours)
        );
    }
    let share = theirs.as_secs_f64() / ours.as_secs_f64();
    assert!(share >= 0.8, "{share:.2} of curl's rate");
}
