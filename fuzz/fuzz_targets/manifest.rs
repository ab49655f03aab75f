//! Manifests, as clients push them and upstreams give them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::words::digest::Digest;
use rules::words::manifest::{Manifest, media_type};

fuzz_target!(|bytes: &[u8]| {
    for kind in [
        media_type::OCI_MANIFEST,
        media_type::OCI_INDEX,
        media_type::DOCKER_MANIFEST,
        media_type::DOCKER_LIST,
    ] {
        if let Ok(manifest) = Manifest::parse(kind, bytes) {
            let _ = manifest.referrer(Digest::sha256(bytes), kind, bytes.len());
        }
    }
});
