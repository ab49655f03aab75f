//! Certificates and timestamps in DER, and what people write in PEM.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sign::making::cosign_key::{CosignKeyError, import};
use sign::{anchor, behind};

fuzz_target!(|bytes: &[u8]| {
    behind::certificates(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (anchor::key(text), anchor::authority(text, text, &[text.to_owned()]));
        let _ = anchor::keyless(text, text, "issuer", "*");
        // a passphrase is tried only for what is whole
        let refused = import(text, b"");
        assert!(!matches!(refused, Ok(_)), "nobody has the key");
        let _: Result<(), CosignKeyError> = refused.map(drop);
    }
});
