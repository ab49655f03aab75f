//! Of many who sign at once, none loses its signature.

use serde_json::{Value, json};

use super::*;
use crate::making::classic;
use crate::union;

fn of(key: &SigningKey) -> Made {
    classic(key, &claims())
}

fn layers(manifest: &[u8]) -> Vec<Value> {
    let manifest: Value = serde_json::from_slice(manifest).expect("JSON");
    manifest["layers"].as_array().expect("layers").clone()
}

#[test]
fn parallel_signers_keep_all_signatures() {
    let keys: Vec<SigningKey> = (0..6).map(|_| signing_key()).collect();
    let mut blobs = Vec::new();
    let mut there: Option<Vec<u8>> = None;
    for key in &keys {
        let made = of(key);
        blobs.extend(made.blobs);
        there = Some(match there {
            None => made.manifest,
            Some(old) => union(&old, &made.manifest).expect("something is to be kept").manifest,
        });
    }
    let case = Case { manifest: there.expect("a manifest"), ending: Some(".sig"), blobs };
    let anchors: Vec<Anchor> = keys.iter().map(anchor_of).collect();
    let told = case.verify(&Anchors::of(&anchors));
    let by: Vec<By> = told.iter().map(|one| one.by.clone()).collect();
    let all: Vec<By> = keys.iter().map(|key| By::Key(key.id())).collect();
    assert_eq!(by, all, "the oldest is the first");
    assert!(told.iter().all(|one| one.fault.is_none()));
}

#[test]
fn the_config_lists_the_layers_as_cosign_and_skopeo_want_it() {
    let (one, other) = (of(&signing_key()), of(&signing_key()));
    let joined = union(&one.manifest, &other.manifest).expect("a union");
    let (manifest, config): (Value, Value) = (
        serde_json::from_slice(&joined.manifest).expect("JSON"),
        serde_json::from_slice(&joined.config).expect("JSON"),
    );
    assert_eq!(manifest["config"]["digest"], Digest::sha256(&joined.config).to_string());
    assert_eq!(manifest["config"]["size"], joined.config.len());
    let digests: Vec<Value> =
        layers(&joined.manifest).iter().map(|layer| layer["digest"].clone()).collect();
    assert_eq!(config["rootfs"]["diff_ids"], Value::from(digests));
    assert_eq!(joined.left_out, 0);
}

#[test]
fn what_is_there_already_is_added_once_and_what_has_all_stands_as_it_is() {
    let (one, other) = (of(&signing_key()), of(&signing_key()));
    assert_eq!(union(&one.manifest, &one.manifest), None);
    let both = union(&one.manifest, &other.manifest).expect("a union").manifest;
    assert_eq!(union(&one.manifest, &both), None, "a client that read and added");
    assert_eq!(union(&other.manifest, &both), None);
    let again = union(&both, &other.manifest).expect("a union").manifest;
    assert_eq!(again, both, "what it had stays, byte by byte");
    // the other way round the content is the same
    let swapped = union(&other.manifest, &one.manifest).expect("a union").manifest;
    let sorted = |manifest: &[u8]| {
        let mut all: Vec<String> = layers(manifest).iter().map(Value::to_string).collect();
        all.sort();
        all
    };
    assert_eq!(sorted(&swapped), sorted(&both));
}

#[test]
fn one_payload_that_two_have_signed_is_two_layers() {
    let made = of(&signing_key());
    let text = String::from_utf8(made.manifest.clone()).expect("text");
    let signature = layers(&made.manifest)[0]["annotations"][crate::layers::SIGNATURE].clone();
    let other = text.replace(signature.as_str().expect("text"), "AAAA");
    let both = union(&made.manifest, other.as_bytes()).expect("a union");
    let both = layers(&both.manifest);
    assert_eq!((both.len(), &both[0]["digest"]), (2, &both[1]["digest"]));
}

#[test]
fn no_more_than_64_are_kept_and_those_that_were_there_stay() {
    let (old, new) = (signing_key(), signing_key());
    let many: Vec<Value> = (0..64)
        .map(|number| {
            let mut layer = layers(&of(&new).manifest)[0].clone();
            layer["annotations"][crate::layers::SIGNATURE] = format!("{number}").into();
            layer
        })
        .collect();
    let mut full: Value = serde_json::from_slice(&of(&new).manifest).expect("JSON");
    full["layers"] = many.into();
    let full = full.to_string();
    let old = of(&old).manifest;
    let joined = union(&old, full.as_bytes()).expect("a union");
    let kept = layers(&joined.manifest);
    assert_eq!((kept.len(), joined.left_out), (64, 1));
    assert_eq!(kept[0], layers(&old)[0]);
    let late = union(&joined.manifest, &of(&new).manifest).expect("a union");
    assert_eq!((late.manifest, late.left_out), (joined.manifest, 1));
}

#[test]
fn what_is_no_manifest_of_such_a_tag_has_no_union() {
    let good = of(&signing_key()).manifest;
    let change = |field: &str, value: Value| {
        let mut manifest: Value = serde_json::from_slice(&good).expect("JSON");
        manifest[field] = value;
        manifest.to_string().into_bytes()
    };
    let layer = layers(&good)[0].clone();
    let with = |field: &str, value: Value| {
        let mut layer = layer.clone();
        layer[field] = value;
        change("layers", json!([layer]))
    };
    for other in [
        b"".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        change("layers", json!([])),
        change("layers", json!([1])),
        change("subject", json!({"digest": subject().to_string()})),
        change("mediaType", "application/vnd.oci.image.index.v1+json".into()),
        with("mediaType", "application/octet-stream".into()),
        with("digest", "sha256:1".into()),
        with("size", "1".into()),
        with("annotations", json!({"a": 1})),
    ] {
        let text = String::from_utf8_lossy(&other).into_owned();
        assert_eq!(union(&good, &other), None, "{text}");
        assert_eq!(union(&other, &good), None, "{text}");
    }
}
