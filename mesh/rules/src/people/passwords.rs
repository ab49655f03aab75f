//! Which passwords and secrets are accepted: Harbor's rule (`src/server/v2.0/handler/user.go` and
//! `robot.go`).

/// Why a password is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it must have 8 to 128 characters, among them an upper-case letter, a lower-case letter and a digit"
)]
pub struct Weak;

/// Whether `text` is accepted as a user's password or a robot's secret.
pub fn check(text: &str) -> Result<(), Weak> {
    let length = text.chars().count();
    let has = |what: fn(char) -> bool| text.chars().any(what);
    let kinds = has(|c| c.is_ascii_uppercase())
        && has(|c| c.is_ascii_lowercase())
        && has(|c| c.is_ascii_digit());
    if (8..=128).contains(&length) && kinds { Ok(()) } else { Err(Weak) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harbors_rule_holds() {
        for good in ["Harbor12345", "aB3aB3aB", "Ünlikely1Word"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for weak in ["", "aB3", "harbor12345", "HARBOR12345", "HarborHarbor", &"aB3".repeat(43)] {
            assert_eq!(check(weak), Err(Weak), "{weak}");
        }
    }
}
