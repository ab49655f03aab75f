//! Harbor's metadata of a project that has no field of its own. Scans read some of it; the rest has
//! no effect in this mesh, and is stored and shown, so that clients read back what they wrote.

use std::collections::BTreeMap;

use rules::ledger::jobs::cron::Cron;
use rules::policies::keys::STORED;
use rules::policies::{alone, caching, signatures, trash, vulnerabilities};
use serde_json::Value;

use super::bad;
use crate::http::{Code, Failure};

/// The maximum length of a value in bytes.
const LONGEST: usize = 128;
/// Some clients send an empty text for what they do not set.
fn is_written(value: &Value) -> bool {
    !value.is_null() && value.as_str() != Some("")
}

/// When everything is scanned again; `None` if never.
pub(super) fn schedule(text: &str) -> Result<Option<Cron>, Failure> {
    if text == "none" {
        return Ok(None);
    }
    let read = text.parse::<Cron>();
    read.map(Some).map_err(|e| bad(format!("metadata.scan_schedule: {e}, or none")))
}

/// The entries of `written` that are stored. Others are dropped, as in Harbor. Refuses values that are too long, not strings, or without
/// a meaning.
pub(super) fn kept(written: &BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, Failure> {
    let known =
        written.iter().filter(|(key, value)| STORED.contains(&key.as_str()) && is_written(value));
    known
        .map(|(key, value)| match value.as_str() {
            Some(text) if text.len() <= LONGEST => {
                vulnerabilities::check(key, text).map_err(bad)?;
                signatures::check(key, text).map_err(bad)?;
                trash::check(key, text).map_err(bad)?;
                caching::check(key, text).map_err(bad)?;
                alone::check(key, text).map_err(bad)?;
                if key == vulnerabilities::metadata::SCHEDULE {
                    schedule(text)?;
                }
                Ok((key.clone(), text.to_owned()))
            }
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
        for wrong in [
            json!({"auto_scan": true}),
            json!({"severity": "severe"}),
            json!({"prevent_vul": "yes"}),
            json!({"trash": "7 days"}),
            json!({"proxy_cache_unused_after": "soon"}),
            json!({"severity": "x".repeat(200)}),
        ] {
            assert_eq!(read(wrong).unwrap_err().status(), http::StatusCode::BAD_REQUEST);
        }
    }
}
