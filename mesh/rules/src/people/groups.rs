//! What groups of identity providers are called.

use crate::ledger::directory::{LONGEST_SUBJECT, MOST_GROUPS};
use crate::words::roles::Provider;

/// The maximum length of a group's name for people, in bytes (Harbor's column).
pub const LONGEST_NAME: usize = 255;

/// Why a group is refused. A sentence for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGroup {
    /// The name cannot be one.
    #[error("group_name has 1 to {LONGEST_NAME} bytes, and no control characters")]
    Name,
    /// This is no distinguished name.
    #[error(
        "ldap_group_dn is the group's distinguished name, like cn=devs,ou=groups,dc=example,dc=com, of at most {LONGEST_SUBJECT} bytes"
    )]
    DistinguishedName,
}

/// Checks a name for people.
pub fn check_name(name: &str) -> Result<(), BadGroup> {
    let fits = !name.trim().is_empty() && name.len() <= LONGEST_NAME;
    if fits && !name.chars().any(char::is_control) { Ok(()) } else { Err(BadGroup::Name) }
}

/// The one form of what a provider calls a group, so that two ways to write it are one group; `None`
/// if it cannot be a group. Directories compare distinguished names without capital letters, and
/// without spaces around their commas and equal signs (RFC 4514 section 2.4, RFC 4518). OIDC has
/// plain names, which are compared as they are.
pub fn subject(provider: Provider, written: &str) -> Option<String> {
    let subject = match provider {
        Provider::Oidc => written.to_owned(),
        Provider::Ldap => distinguished(written)?,
    };
    let fits = !subject.trim().is_empty() && subject.len() <= LONGEST_SUBJECT;
    (fits && !subject.chars().any(char::is_control)).then_some(subject)
}

/// A distinguished name in its one form. A comma or equal sign after a backslash is part of a value.
fn distinguished(written: &str) -> Option<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in written.to_lowercase().chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut()?.push(c);
    }
    let part = |part: &String| {
        let (kind, value) = part.split_once('=')?;
        let (kind, value) = (kind.trim(), value.trim());
        (!kind.is_empty() && !value.is_empty()).then(|| format!("{kind}={value}"))
    };
    Some(parts.iter().map(part).collect::<Option<Vec<_>>>()?.join(","))
}

/// The groups that a provider said a user is in, in their one form, without those that cannot be
/// groups. What is beyond the maximum number is left out: of the same groups always the same are
/// left. Returns whether there were too many, too.
pub fn subjects<'a>(
    provider: Provider,
    said: impl IntoIterator<Item = &'a str>,
) -> (Vec<String>, bool) {
    let mut all: Vec<String> =
        said.into_iter().filter_map(|written| subject(provider, written)).collect();
    all.sort_unstable();
    all.dedup();
    let too_many = all.len() > MOST_GROUPS;
    all.truncate(MOST_GROUPS);
    (all, too_many)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_ways_to_write_a_distinguished_name_are_one_group() {
        let one = subject(Provider::Ldap, "cn=devs,ou=groups,dc=example,dc=com");
        for written in
            ["CN=Devs,OU=Groups,DC=example,DC=com", " cn = devs , ou=groups,dc= example,dc=com "]
        {
            assert_eq!(subject(Provider::Ldap, written), one, "{written}");
        }
        let comma = subject(Provider::Ldap, r"CN=Devs\, Berlin,dc=example").unwrap();
        assert_eq!(comma, r"cn=devs\, berlin,dc=example");
        assert_ne!(subject(Provider::Ldap, "cn=devs,dc=other"), one);
        for bad in ["", "devs", "cn=devs,,dc=x", "cn=,dc=x", "=x", "cn=a\nb", &"cn=x,".repeat(200)]
        {
            assert_eq!(subject(Provider::Ldap, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_name_of_oidc_is_compared_as_it_is() {
        assert_eq!(subject(Provider::Oidc, "Devs").as_deref(), Some("Devs"));
        assert_ne!(subject(Provider::Oidc, "Devs"), subject(Provider::Oidc, "devs"));
        assert_eq!(subject(Provider::Oidc, "  "), None);
    }

    #[test]
    fn of_very_many_groups_always_the_same_are_left() {
        let all: Vec<String> = (0..MOST_GROUPS + 9).map(|n| format!("g{n:04}")).collect();
        let (kept, too_many) = subjects(Provider::Oidc, all.iter().map(String::as_str));
        let (again, _) = subjects(Provider::Oidc, all.iter().rev().map(String::as_str));
        assert!(too_many && kept == again && kept.len() == MOST_GROUPS);
        let (few, too_many) = subjects(Provider::Oidc, ["b", "a", "b", ""]);
        assert_eq!((few, too_many), (vec!["a".to_owned(), "b".to_owned()], false));
    }

    proptest! {
        #[test]
        fn the_one_form_is_its_own_one_form(written in r"[a-cA-C=, \\]{0,20}") {
            if let Some(one) = subject(Provider::Ldap, &written) {
                prop_assert_eq!(subject(Provider::Ldap, &one), Some(one));
            }
        }
    }
}
