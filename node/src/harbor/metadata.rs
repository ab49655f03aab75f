//! Harbor's metadata of a project that has no effect in this mesh. It is stored and shown, so that
//! clients read back what they wrote.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::http::{Code, Failure};

/// The maximum length of a value in bytes.
const LONGEST: usize = 128;
/// The keys that are stored. Other keys are dropped, as in Harbor.
pub(super) const KEPT: [&str; 11] = [
    "auto_sbom_generation",
    "auto_scan",
    "enable_content_trust",
    "enable_content_trust_cosign",
    "max_upstream_conn",
    "prevent_vul",
    "proxy_cache_filter_kind",
    "proxy_referrer_api",
    "proxy_speed_kb",
    "reuse_sys_cve_allowlist",
    "severity",
];

/// The entries of `written` that are stored. Refuses values that are too long or not strings.
pub(super) fn kept(written: &BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, Failure> {
    let known =
        written.iter().filter(|(key, value)| KEPT.contains(&key.as_str()) && !value.is_null());
    known
        .map(|(key, value)| match value.as_str() {
            Some(text) if text.len() <= LONGEST => Ok((key.clone(), text.to_owned())),
            _ => Err(Failure::new(
                Code::BadRequest,
                format!("metadata.{key} is a string of at most {LONGEST} bytes"),
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_harbor_knows_is_kept_as_it_came() {
        let read = |written: Value| kept(&serde_json::from_value(written).unwrap());
        let written = json!({"auto_scan": "true", "severity": "low", "prevent_vul": null, "ours": {"a": [1]}});
        let expected =
            [("auto_scan", "true"), ("severity", "low")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(read(written).unwrap(), BTreeMap::from(expected));
        for wrong in [json!({"auto_scan": true}), json!({"severity": "x".repeat(200)})] {
            assert_eq!(read(wrong).unwrap_err().status(), http::StatusCode::BAD_REQUEST);
        }
    }
}
