//! Names that people take for one another: letters of several scripts look alike (Unicode Technical
//! Standard 39, confusable detection).

use unicode_security::confusable_detection::skeleton;

/// Whether one of these names may be taken for the other one. Two names of ASCII letters never are:
/// people know those, and have had names like `user1` and `userl` side by side for long.
pub fn look_alike(one: &str, other: &str) -> bool {
    one != other && !(one.is_ascii() && other.is_ascii()) && skeleton(one).eq(skeleton(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_another_script_make_no_other_name() {
        for (one, other) in
            [("admin", "\u{430}dmin"), ("ann", "\u{ff41}nn"), ("j\u{f6}rg", "jo\u{308}rg")]
        {
            assert!(look_alike(one, other) && look_alike(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("ann", "ann"),
            ("ann", "Ann"),
            ("user1", "userl"),
            ("jorg", "j\u{f6}rg"),
            ("\u{430}\u{43d}\u{44f}", "ann"),
        ] {
            assert!(!look_alike(one, other), "{one} {other}");
        }
    }
}
