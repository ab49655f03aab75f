//! How long a project's trash keeps what was deleted, and whether its quota counts that.

use core::time::Duration;

/// The key of a project's metadata that says how long: `7d`, `12h`, `30m`, `90s`; `0` for no trash.
pub const TRASH: &str = "trash";
/// The key of a project's metadata that says whether the quota counts what only the trash has, if its
/// value is "true".
pub const COUNTED: &str = "trash_counted";
/// The mesh's setting for projects that say nothing.
pub const SETTING: &str = "trash_per_project";
/// What counts if neither says anything.
pub const DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest time.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Reads a time; `None` if it is none.
pub fn time(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let unit = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 24 * 3600,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let number: u64 = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))?;
    number.checked_mul(unit).map(Duration::from_secs).filter(|time| *time <= LONGEST)
}

/// What a time must look like, for people.
pub const FORM: &str = "a time of at most ten years like 7d, 12h or 30m, or 0 for no trash";

/// Checks an entry of a project's metadata, if it is about the trash.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    match key {
        TRASH if time(value).is_none() => Err(format!("metadata.{TRASH} is {FORM}")),
        COUNTED if !matches!(value, "true" | "false") => {
            Err(format!("metadata.{COUNTED} is \"true\" or \"false\""))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_nothing_else_is_one() {
        for (text, seconds) in [("0", 0), ("0d", 0), ("90s", 90), ("7d", 604_800), ("12h", 43_200)]
        {
            assert_eq!(time(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        let wrong = [
            "",
            "7",
            "d",
            "-1d",
            "+1d",
            "1.5h",
            "7 d",
            "7w",
            "4000d",
            "99999999999999999999d",
            "é",
        ];
        for wrong in wrong {
            assert_eq!(time(wrong), None, "{wrong}");
            assert!(check(TRASH, wrong).is_err());
        }
        assert!(check(COUNTED, "yes").is_err() && check("severity", "yes").is_ok());
    }
}
