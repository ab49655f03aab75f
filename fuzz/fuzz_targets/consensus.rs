//! Messages of the consensus, as a replica reads those of another.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mesh::ledger::read_consensus(bytes));
