//! notation's JSON web signatures.
#![no_main]

mod envelopes;

use envelopes::{SUBJECT, nobody_has_signed};
use libfuzzer_sys::fuzz_target;
use sign::behind;

const KIND: &str = "application/jose+json";
const CONFIG: &str = "application/vnd.cncf.notary.signature";

fuzz_target!(|bytes: &[u8]| {
    nobody_has_signed(KIND, CONFIG, None, bytes);
    behind::notation(KIND, bytes, &SUBJECT);
});
