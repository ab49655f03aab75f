//! How long what nodes have cached of a proxy project stays without a pull. It is evicted, so that
//! nothing of it is deleted for good: the upstream has it.

use core::time::Duration;
use std::collections::BTreeMap;

use super::trash::time;

/// The key of a proxy project's metadata that says after how long without a pull a node evicts what
/// it has cached: `7d`, `12h`; `0` for never because of its age.
pub const UNUSED_AFTER: &str = "proxy_cache_unused_after";
/// What counts if the project does not say it: Harbor's retention of new proxy projects.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// After how long without a pull what is cached of a project with this metadata is evicted; `None` for
/// never because of its age.
pub fn unused_after(metadata: &BTreeMap<String, String>) -> Option<Duration> {
    let written = metadata.get(UNUSED_AFTER).and_then(|text| time(text));
    Some(written.unwrap_or(UNUSED)).filter(|after| !after.is_zero())
}

/// Checks an entry of a project's metadata, if it is about that.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    match key {
        UNUSED_AFTER if time(value).is_none() => Err(format!(
            "metadata.{UNUSED_AFTER} is a time of at most ten years like 7d or 12h, or 0 for never"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_says_after_how_long_and_seven_days_count_if_it_does_not() {
        let of = |text: &str| unused_after(&[(UNUSED_AFTER.to_owned(), text.to_owned())].into());
        assert_eq!(unused_after(&BTreeMap::new()), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(of("12h"), Some(Duration::from_secs(43_200)));
        assert_eq!((of("0"), of("0d")), (None, None));
        assert!(check(UNUSED_AFTER, "30d").is_ok() && check("trash", "no time").is_ok());
        assert!(check(UNUSED_AFTER, "30").is_err() && check(UNUSED_AFTER, "-1d").is_err());
    }
}
