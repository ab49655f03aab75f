//! The messages of read leases, in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::wire::{FromGranter, FromHolder, decode};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::<FromHolder>(bytes);
    let _ = decode::<FromGranter>(bytes);
});
