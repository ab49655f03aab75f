//! Sigstore bundles.
#![no_main]

mod envelopes;

use envelopes::{SUBJECT, nobody_has_signed};
use libfuzzer_sys::fuzz_target;
use sign::behind;

const KIND: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const CONFIG: &str = "application/vnd.oci.empty.v1+json";

fuzz_target!(|bytes: &[u8]| {
    nobody_has_signed(KIND, CONFIG, None, bytes);
    behind::cosign(bytes, &SUBJECT);
});
