//! What a member sends first on a stream, as `mesh::links` reads it: its kind, whether it is
//! admitted, and only then the message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::members::door::Standing;
use rules::wire::{HEAD, Kind, Open, decode};

fuzz_target!(|bytes: &[u8]| {
    let kind = Kind::of(&bytes[..bytes.len().min(HEAD)]);
    if kind.is_ok_and(|kind| kind.admit(Standing::Replica, bytes.len()).is_ok()) {
        let _ = decode::<Open>(bytes);
    }
});
