//! A blob with signatures, as the only layer of a manifest: nobody has the key, so whatever the bytes
//! are, nobody has signed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use rules::policies::signatures::By;
use rules::words::digest::Digest;
use sign::making::SigningKey;
use sign::{Anchors, anchor, evidence, verify};

/// What the signatures are to be about.
pub static SUBJECT: LazyLock<Digest> = LazyLock::new(|| Digest::sha256(b"an image"));
static ANCHORS: LazyLock<Anchors> = LazyLock::new(|| {
    let key = SigningKey::generate().expect("a key");
    Anchors::of(&[anchor::key(&key.public_pem()).expect("an anchor")])
});

/// Verifies `bytes`, as a layer of this type in a manifest with a configuration of that type, behind a
/// tag with this ending or as a referrer.
pub fn nobody_has_signed(kind: &str, config: &str, ending: Option<&str>, bytes: &[u8]) {
    let (digest, subject, size) = (Digest::sha256(bytes), *SUBJECT, bytes.len());
    let manifest = format!(
        r#"{{"schemaVersion":2,"artifactType":"{kind}","config":{{"mediaType":"{config}"}},
        "layers":[{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}],
        "subject":{{"digest":"{subject}"}}}}"#
    );
    let read = evidence::read(manifest.as_bytes(), ending).expect("evidence");
    let blobs = BTreeMap::from([(digest, Bytes::copy_from_slice(bytes))]);
    for one in verify(manifest.as_bytes(), &read, &blobs, &subject, &ANCHORS) {
        assert!(matches!(one.by, By::Unknown { .. }), "nobody has the key: {one:?}");
    }
}
