//! notation's COSE signatures.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rules::policies::signatures::By;
use rules::words::digest::Digest;
use sign::making::SigningKey;
use sign::{Anchors, anchor, behind, evidence, verify};

const KIND: &str = "application/cose";
static SUBJECT: LazyLock<Digest> = LazyLock::new(|| Digest::sha256(b"an image"));
static ANCHORS: LazyLock<Anchors> = LazyLock::new(|| {
    let key = SigningKey::generate().expect("a key");
    Anchors::of(&[anchor::key(&key.public_pem()).expect("an anchor")])
});

fuzz_target!(|bytes: &[u8]| {
    let (digest, subject, size) = (Digest::sha256(bytes), *SUBJECT, bytes.len());
    let manifest = format!(
        r#"{{"schemaVersion":2,"artifactType":"{KIND}","config":{{"mediaType":"application/vnd.cncf.notary.signature"}},
        "layers":[{{"mediaType":"{KIND}","digest":"{digest}","size":{size}}}],
        "subject":{{"digest":"{subject}"}}}}"#
    );
    let read = evidence::read(manifest.as_bytes(), None).expect("evidence");
    let blobs = BTreeMap::from([(digest, Bytes::copy_from_slice(bytes))]);
    for one in verify(manifest.as_bytes(), &read, &blobs, &subject, &ANCHORS) {
        assert!(matches!(one.by, By::Unknown { .. }), "nobody has the key: {one:?}");
    }
    behind::notation(KIND, bytes, &subject);
});
