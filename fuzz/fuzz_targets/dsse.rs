//! Attestations of cosign 2: DSSE envelopes, and what they and other signatures of cosign's have inside.
#![no_main]

mod envelopes;

use envelopes::{SUBJECT, nobody_has_signed};
use libfuzzer_sys::fuzz_target;
use sign::behind;

const KIND: &str = "application/vnd.dsse.envelope.v1+json";
const CONFIG: &str = "application/vnd.cncf.notary.signature";

fuzz_target!(|bytes: &[u8]| {
    nobody_has_signed(KIND, CONFIG, Some(".att"), bytes);
    behind::cosign(bytes, &SUBJECT);
});
