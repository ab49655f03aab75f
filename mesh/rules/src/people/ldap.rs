//! How an LDAP directory is asked about people (RFC 4511, RFC 4515). What people write is escaped, so
//! that it is a value and nothing else.

/// A name that nobody can have: it matches everybody.
const EVERYBODY: &str = "*";

/// A text as a value in a filter (RFC 4515 section 3).
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'*' | b'(' | b')' | b'\\' | 0..=0x1f | 0x7f..=0xff => {
                out.push_str(&format!("\\{byte:02x}"));
            }
            _ => out.push(char::from(byte)),
        }
    }
    out
}

/// The filter that finds the person with this name. `more` is a filter that they must match, too, or
/// empty.
pub fn person(attribute: &str, name: &str, more: &str) -> String {
    let named = format!("({attribute}={})", escaped(name));
    if more.is_empty() { named } else { format!("(&{more}{named})") }
}

/// The filter that finds all that have this attribute. `more` is as in [`person`].
pub fn everybody(attribute: &str, more: &str) -> String {
    let has = format!("({attribute}=*)");
    if more.is_empty() { has } else { format!("(&{more}{has})") }
}

/// Whether this can be the name of a person at all.
pub fn can_be_name(name: &str) -> bool {
    !name.trim().is_empty() && name != EVERYBODY && name.len() <= 255
}

/// The filter that finds the groups that have one of these as a member: people, or groups in groups.
/// `more` is a filter that groups must match, too, or empty.
pub fn groups_of<'a>(members: impl IntoIterator<Item = &'a str>, more: &str) -> String {
    let has = |dn: &str| {
        let dn = escaped(dn);
        format!("(member={dn})(uniqueMember={dn})")
    };
    let any: String = members.into_iter().map(has).collect();
    if more.is_empty() { format!("(|{any})") } else { format!("(&{more}(|{any}))") }
}

/// What to do with a person's directory when it was asked `age` ago, in milliseconds, and said yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// What it said counts.
    Counts,
    /// It is asked again; if it does not answer, what it said counts.
    Ask,
    /// It is asked again, and nothing else counts.
    Forgotten,
}

/// For how long what a directory said is not asked for again, in milliseconds.
pub const FRESH: u64 = 300_000;

/// See [`Remembered`]. `lasts` is for how long it counts while the directory is away.
pub fn remembered(age: u64, lasts: u64) -> Remembered {
    if age < FRESH.min(lasts) {
        Remembered::Counts
    } else if age < lasts {
        Remembered::Ask
    } else {
        Remembered::Forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_a_value_and_nothing_else() {
        assert_eq!(person("uid", "ann", ""), "(uid=ann)");
        let more = "(objectClass=person)";
        assert_eq!(person("uid", "ann", more), "(&(objectClass=person)(uid=ann))");
        assert_eq!(everybody("uid", more), "(&(objectClass=person)(uid=*))");
        let attack = person("uid", "*)(uid=*))(|(uid=*", "");
        assert_eq!(attack, r"(uid=\2a\29\28uid=\2a\29\29\28|\28uid=\2a)");
        assert_eq!(escaped("Jör\\g\0"), r"J\c3\b6r\5cg\00");
        for nobody in ["", " ", "*", &"x".repeat(256)] {
            assert!(!can_be_name(nobody), "{nobody}");
        }
    }

    #[test]
    fn groups_have_people_and_groups_as_members() {
        assert_eq!(groups_of(["cn=a"], ""), "(|(member=cn=a)(uniqueMember=cn=a))");
        let two = groups_of(["cn=a", "cn=(b)"], "(x=y)");
        assert!(two.starts_with("(&(x=y)(|(member=cn=a)"), "{two}");
        assert!(two.contains(r"(member=cn=\28b\29)"), "{two}");
    }

    #[test]
    fn a_verdict_counts_for_a_while_and_for_longer_while_the_directory_is_away() {
        let lasts = 10 * FRESH;
        let of = |age| remembered(age, lasts);
        assert_eq!(of(0), Remembered::Counts);
        assert_eq!((of(FRESH), of(lasts - 1)), (Remembered::Ask, Remembered::Ask));
        assert_eq!(of(lasts), Remembered::Forgotten);
        assert_eq!(remembered(0, 0), Remembered::Forgotten);
        assert_eq!(remembered(5, 4), Remembered::Forgotten);
    }

    proptest! {
        #[test]
        fn no_text_ends_its_value(text in ".{0,40}") {
            let escaped = escaped(&text);
            prop_assert!(!escaped.contains(['(', ')', '*', '\0']), "{}", escaped);
        }
    }
}
