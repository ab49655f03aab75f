//! Two manifests of one `.sig` or `.att` tag. cosign and skopeo read the manifest, add a layer and
//! write it again, so of two that sign at once one would lose its signature.

use std::collections::{BTreeMap, BTreeSet};

use rules::policies::signatures::MOST_SIGNATURES;
use rules::words::digest::Digest;
use serde_json::{Map, Value, json};

use crate::layers::{CONFIG, DSSE, MANIFEST, SIMPLE};

/// The maximum length of a manifest that is joined, in bytes: 64 layers with keyless signatures have
/// some 10 KiB each.
const LARGEST: usize = 4 << 20;

/// A manifest that has the signatures of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Union {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Its config, which the manifest names by digest.
    pub config: Vec<u8>,
    /// How many signatures of the newer manifest have no place in it, because 64 are there already.
    pub left_out: usize,
}

/// Joins what is behind a tag with what a client writes there. The layers of `old` come first, then
/// those of `new` that `old` does not have (the same digest with the same annotations).
///
/// `None`: `new` has all that `old` has, so it can stand as it is; or one of them is no manifest of
/// such a tag (all layers are simple signing or DSSE envelopes, without a subject), so they have
/// nothing in common.
///
/// At most 64 layers are kept, because no more are read: **those of `old` stay**, so that nobody
/// pushes out the signatures of others. Delete the tag to begin anew.
pub fn union(old: &[u8], new: &[u8]) -> Option<Union> {
    let (old, new) = (read(old)?, read(new)?);
    let has: BTreeSet<&Identity> = new.layers.iter().map(|(identity, _)| identity).collect();
    if old.layers.iter().all(|(identity, _)| has.contains(identity)) {
        return None;
    }
    let (mut seen, mut layers) = (BTreeSet::new(), Vec::new());
    for (identity, layer) in old.layers.into_iter().chain(new.layers) {
        if seen.insert(identity) {
            layers.push(layer);
        }
    }
    let left_out = layers.len().saturating_sub(MOST_SIGNATURES);
    layers.truncate(MOST_SIGNATURES);
    let mut annotations = old.annotations;
    annotations.extend(new.annotations);
    let (manifest, config) = write(layers, annotations);
    Some(Union { manifest, config, left_out })
}

/// Whether `new` is a manifest of such a tag and has all signatures of `old`, which is one, too.
pub fn has_all(new: &[u8], old: &[u8]) -> bool {
    let (Some(new), Some(old)) = (read(new), read(old)) else { return false };
    let has: BTreeSet<&Identity> = new.layers.iter().map(|(identity, _)| identity).collect();
    old.layers.iter().all(|(identity, _)| has.contains(identity))
}

/// What makes a layer the same: its digest and its annotations.
type Identity = (String, BTreeMap<String, String>);

struct Tagged {
    layers: Vec<(Identity, Value)>,
    annotations: Map<String, Value>,
}

fn read(manifest: &[u8]) -> Option<Tagged> {
    if manifest.len() > LARGEST {
        return None;
    }
    let Value::Object(mut fields) = serde_json::from_slice(manifest).ok()? else { return None };
    let Some(Value::Array(layers)) = fields.remove("layers") else { return None };
    let is_image = fields.get("mediaType").is_none_or(|kind| kind == MANIFEST);
    let has_subject = fields.get("subject").is_some_and(|subject| !subject.is_null());
    if !is_image || has_subject || layers.is_empty() {
        return None;
    }
    let layers = layers.into_iter().map(|layer| Some((identity(&layer)?, layer)));
    let layers = layers.collect::<Option<_>>()?;
    let annotations = match fields.remove("annotations") {
        Some(Value::Object(annotations)) => annotations,
        _ => Map::new(),
    };
    Some(Tagged { layers, annotations })
}

/// `None` if the layer is no signature.
fn identity(layer: &Value) -> Option<Identity> {
    let kind = layer.get("mediaType").and_then(Value::as_str);
    let digest = layer.get("digest").and_then(Value::as_str)?;
    let fits = matches!(kind, Some(SIMPLE | DSSE))
        && digest.parse::<Digest>().is_ok()
        && layer.get("size").is_some_and(Value::is_u64);
    let annotations = layer.get("annotations").and_then(Value::as_object);
    let text = |(name, value): (&String, &Value)| {
        value.as_str().map(|value| (name.clone(), value.to_owned()))
    };
    let annotations = annotations.into_iter().flatten().map(text).collect::<Option<_>>()?;
    fits.then(|| (digest.to_owned(), annotations))
}

/// A manifest of such a tag and its config. cosign and skopeo read `diff_ids` of the config, and add
/// to them.
pub(crate) fn write(layers: Vec<Value>, annotations: Map<String, Value>) -> (Vec<u8>, Vec<u8>) {
    let ids: Vec<&Value> = layers.iter().filter_map(|layer| layer.get("digest")).collect();
    let config = json!({
        "architecture": "",
        "config": {},
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let config = config.to_string().into_bytes();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": layers,
    });
    if !annotations.is_empty() {
        manifest["annotations"] = Value::Object(annotations);
    }
    (manifest.to_string().into_bytes(), config)
}

/// The descriptor of a blob.
pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(bytes).to_string(), "size": bytes.len()})
}
