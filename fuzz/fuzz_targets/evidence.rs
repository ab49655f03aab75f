//! Manifests of signatures: what they are, and two of one tag.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sign::{accessory, evidence, union};

const OLD: &[u8] = br#"{"schemaVersion":2,"layers":[{
    "mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","size":1,
    "digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "annotations":{"dev.cosignproject.cosign/signature":"AAAA"}}]}"#;

fuzz_target!(|bytes: &[u8]| {
    for ending in [None, Some(".sig"), Some(".att")] {
        if let Some(read) = evidence::read(bytes, ending) {
            assert!(read.blobs.len() <= 64 && read.blobs.iter().all(|(_, size)| *size <= 1 << 20));
        }
    }
    accessory(bytes);
    if let Some(joined) = union(OLD, bytes) {
        // what was there is not lost
        assert!(union(OLD, &joined.manifest).is_none());
    }
    union(bytes, OLD);
});
