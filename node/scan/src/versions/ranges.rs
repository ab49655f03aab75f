//! Ranges of versions as advisories write them: `>=1.0, <1.2 || =2.0`.

use std::cmp::Ordering;

/// One bound of a range, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound<'a> {
    /// `>=`, `<`, `~`; empty for none, which means equal.
    pub(crate) operator: &'a str,
    /// The version after it.
    pub(crate) version: &'a str,
}

/// Whether a range holds, if `holds` says of each bound whether it does. `None` if the range cannot
/// be read: by form, or because `holds` cannot read a bound.
pub(crate) fn satisfies(
    range: &str,
    mut holds: impl FnMut(Bound<'_>) -> Option<bool>,
) -> Option<bool> {
    let mut any = false;
    for alternative in range.split("||") {
        // each bound is read, so that a mistake in one is seen wherever it stands
        let mut all = true;
        for bound in bounds(alternative)? {
            all &= holds(bound)?;
        }
        any |= all;
    }
    Some(any)
}

fn bounds(text: &str) -> Option<Vec<Bound<'_>>> {
    let mut bounds = Vec::new();
    let separates = |c: char| c.is_whitespace() || c == ',';
    let mut rest = text.trim_start_matches(separates);
    while !rest.is_empty() {
        let operator = rest.len() - rest.trim_start_matches(['=', '!', '<', '>', '~', '^']).len();
        let (operator, after) = rest.split_at(operator);
        let after = after.trim_start();
        // `~` may stand in a version, but not at its beginning
        let ends = |c: char| separates(c) || matches!(c, '=' | '<' | '>' | '^');
        let end = after.find(ends).unwrap_or(after.len());
        if end == 0 {
            return None;
        }
        bounds.push(Bound { operator, version: &after[..end] });
        rest = after[end..].trim_start_matches(separates);
    }
    if bounds.is_empty() { None } else { Some(bounds) }
}

/// Whether a comparison with a bound's version fulfils one of the operators that all ecosystems
/// have. `None` for another operator.
pub(crate) fn fulfils(operator: &str, compared: Ordering) -> Option<bool> {
    Some(match operator {
        "" | "=" | "==" => compared.is_eq(),
        "!=" => compared.is_ne(),
        ">" => compared.is_gt(),
        "<" => compared.is_lt(),
        ">=" | "=>" => compared.is_ge(),
        "<=" | "=<" => compared.is_le(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_apart() {
        let read = |text| {
            let bounds = bounds(text)?;
            Some(bounds.iter().map(|one| (one.operator, one.version)).collect::<Vec<_>>())
        };
        assert_eq!(read(">= 1.0, <1.2"), Some(vec![(">=", "1.0"), ("<", "1.2")]));
        assert_eq!(read(">1.0 <2.0~rc1"), Some(vec![(">", "1.0"), ("<", "2.0~rc1")]));
        assert_eq!(read(" 1.0 "), Some(vec![("", "1.0")]));
        for wrong in ["", " ", "<", ">= , 1.0 <", "< >1.0"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn one_alternative_is_enough_and_each_must_be_readable() {
        let holds = |bound: Bound<'_>| {
            let compared = 5.cmp(&bound.version.parse::<u32>().ok()?);
            fulfils(bound.operator, compared)
        };
        assert_eq!(satisfies("<3 || >4, <6", holds), Some(true));
        assert_eq!(satisfies("<3 || >5", holds), Some(false));
        assert_eq!(satisfies("<9 || >x", holds), None);
        assert_eq!(satisfies("<9 ||", holds), None);
    }
}
