//! The one frame that a stranger may send.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::wire::decode_join;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = decode_join(bytes) {
        assert!(request.check().is_ok(), "what was read is within its bounds");
    }
});
