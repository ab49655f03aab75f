//! `WWW-Authenticate` headers of other registries.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../node/upstream/src/challenge.rs"]
mod challenge;

use challenge::Challenge;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let found = challenge::parse(text.lines());
    // nothing is made up: what was read is in the header, apart from what a backslash quotes
    let plain = text.replace('\\', "");
    for one in found {
        let Challenge::Bearer { realm, service, scope } = one else { continue };
        for value in [Some(realm), service, scope].into_iter().flatten() {
            assert!(plain.contains(&value.replace('\\', "")), "{value:?}");
        }
    }
});
