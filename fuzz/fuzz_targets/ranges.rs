//! `Range` headers of pulls. The first bytes of the input are the blob's length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::words::range::{MOST, Ranges, wanted};

fuzz_target!(|bytes: &[u8]| {
    let Some((size, header)) = bytes.split_first_chunk::<8>() else { return };
    let Ok(header) = std::str::from_utf8(header) else { return };
    let size = u64::from_le_bytes(*size);
    let parts = match wanted(Some(header), size) {
        Ranges::Part(part) => vec![part],
        Ranges::Parts(parts) => parts,
        Ranges::Whole | Ranges::Unsatisfiable => return,
    };
    assert!(parts.len() <= MOST);
    assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
    let sum: u128 = parts.iter().map(|part| u128::from(part.end - part.start)).sum();
    assert!(sum <= u128::from(size));
});
