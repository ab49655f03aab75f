//! What comes before and after the bytes of blobs, and the list of a blob's groups.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::blobs::groups::Groups;
use rules::blobs::holding::Held;
use rules::wire::{CopyEnd, Fetched, decode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Fetched::Found { size, content: Some(content), list, .. }) = decode(bytes) {
        let _ = Groups::from_list(list.as_deref().map_or(&[], Vec::as_slice), content, size);
    }
    let _ = decode::<CopyEnd>(bytes);
    let _ = decode::<Result<Held, String>>(bytes);
});
