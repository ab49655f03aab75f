//! A minute of trials: clients work while faults that a seed chose befall a mesh, and afterwards
//! everything that was acknowledged is everywhere, one order explains what clients saw of tags, all
//! replicas have the same records, and the mesh is whole again without help.
//!
//! `loadtest faults` plays them. Each run has other seeds: a failure prints its seed and how to
//! play it again. `tests/run --long N` plays as many as asked.

use std::process::Command;

use tests::{process, tools};

/// No further trial begins after so many seconds.
const SECONDS: u64 = 60;

#[test]
fn a_minute_of_trials_is_passed() {
    let atoll = tools::atoll();
    let loadtest = atoll.with_file_name("loadtest");
    assert!(loadtest.is_file(), "there is no {}: cargo build -p loadtest", loadtest.display());
    let out = tempfile::tempdir().expect("a temporary folder");
    let seed = u64::from(rand::random::<u32>());
    let mut trials = Command::new(loadtest);
    trials.args(["faults", "--trials", "100", "--seconds", &SECONDS.to_string()]);
    trials.args(["--seed", &seed.to_string()]);
    trials.arg("--atoll").arg(&atoll).arg("--out").arg(out.path());
    process::succeed(&mut trials);
    let played = std::fs::read_to_string(out.path().join("trials.jsonl")).expect("trials");
    assert!(played.lines().count() > 0, "no trial was played");
}
