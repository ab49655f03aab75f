//! The answer of a peer to a question.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::wire::{Answer, decode};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::<Answer>(bytes);
});
