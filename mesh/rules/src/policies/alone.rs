//! For how long an edge that hears no replica lets images of a project pass that demands signatures or
//! scans. It cannot hear of a revocation then.

use core::time::Duration;
use std::collections::BTreeMap;

use super::trash::time;

/// The key of a project's metadata that says for how long an edge that is cut off goes by what it knew
/// of signatures and scans: `10m`, `12h`; `0` for the few seconds until it notices. Without it, for `edge.alone_for`. Not
/// in Harbor.
pub const ALONE: &str = "gate_alone_for";

/// For how long; `None` if the project does not say it.
pub fn alone_for(metadata: &BTreeMap<String, String>) -> Option<Duration> {
    metadata.get(ALONE).and_then(|text| time(text))
}

/// Checks an entry of a project's metadata, if it is about that.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    match key {
        ALONE if time(value).is_none() => Err(format!(
            "metadata.{ALONE} is a time like 10m or 12h, or 0: for so long an edge that is cut off \
             goes by what it knew of signatures and scans"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_says_how_long_what_an_edge_knew_may_count() {
        let of = |text: &str| alone_for(&[(ALONE.to_owned(), text.to_owned())].into());
        assert_eq!(alone_for(&BTreeMap::new()), None);
        assert_eq!((of("10m"), of("0")), (Some(Duration::from_secs(600)), Some(Duration::ZERO)));
        assert!(check(ALONE, "30s").is_ok() && check("trash", "no time").is_ok());
        assert!(check(ALONE, "30").is_err() && check(ALONE, "").is_err());
    }
}
