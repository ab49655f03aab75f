//! Maven's versions (its `ComparableVersion`), with the ranges that advisories write and those of
//! Maven itself: `>=1.0, <1.2`, `[1.0,1.2)`.

use std::cmp::Ordering;

use super::ranges::{self, fulfils};

/// Qualifiers in their order. The empty one is the release.
const QUALIFIERS: [&str; 7] = ["alpha", "beta", "milestone", "rc", "snapshot", "", "sp"];

/// A part of a version: numbers and words that points separate, and lists that `-` begins.
#[derive(Clone, Debug)]
enum Item {
    /// Without leading zeros, because it may be longer than any machine's number.
    Number(String),
    Word(String),
    List(Vec<Item>),
}

impl Item {
    fn number(digits: &str) -> Item {
        Item::Number(digits.trim_start_matches('0').to_owned())
    }

    fn word(word: &str, before_digit: bool) -> Item {
        let word = match word {
            "a" if before_digit => "alpha",
            "b" if before_digit => "beta",
            "m" if before_digit => "milestone",
            "ga" | "final" | "release" => "",
            "cr" => "rc",
            word => word,
        };
        Item::Word(word.to_owned())
    }

    fn of(text: &str, is_number: bool) -> Item {
        if is_number { Item::number(text) } else { Item::word(text, false) }
    }

    fn is_nothing(&self) -> bool {
        match self {
            Item::Number(digits) => digits.is_empty(),
            Item::Word(word) => word.is_empty(),
            Item::List(items) => items.is_empty(),
        }
    }

    /// Compares with nothing: `1.0` is `1`, `1-rc` is before `1`, and `1-sp` after it.
    fn compare_to_nothing(&self) -> Ordering {
        match self {
            Item::Number(digits) if digits.is_empty() => Ordering::Equal,
            Item::Number(_) => Ordering::Greater,
            Item::Word(word) => rank(word).cmp(&rank("")),
            Item::List(items) => items
                .iter()
                .map(Item::compare_to_nothing)
                .find(|compared| compared.is_ne())
                .unwrap_or(Ordering::Equal),
        }
    }

    fn compare(&self, other: &Item) -> Ordering {
        // words are before lists, and lists before numbers
        let class = |item: &Item| match item {
            Item::Word(_) => 0,
            Item::List(_) => 1,
            Item::Number(_) => 2,
        };
        match (self, other) {
            (Item::Number(one), Item::Number(other)) => {
                one.len().cmp(&other.len()).then_with(|| one.cmp(other))
            }
            (Item::Word(one), Item::Word(other)) => rank(one).cmp(&rank(other)),
            (Item::List(one), Item::List(other)) => compare_lists(one, other),
            _ => class(self).cmp(&class(other)),
        }
    }
}

/// Where a qualifier sorts: unknown ones after all others, by their letters.
fn rank(word: &str) -> (usize, &str) {
    match QUALIFIERS.iter().position(|one| *one == word) {
        Some(at) => (at, ""),
        None => (QUALIFIERS.len(), word),
    }
}

fn compare_lists(one: &[Item], other: &[Item]) -> Ordering {
    for at in 0..one.len().max(other.len()) {
        let compared = match (one.get(at), other.get(at)) {
            (Some(one), Some(other)) => one.compare(other),
            (Some(one), None) => one.compare_to_nothing(),
            (None, Some(other)) => other.compare_to_nothing().reverse(),
            (None, None) => Ordering::Equal,
        };
        if compared.is_ne() {
            return compared;
        }
    }
    Ordering::Equal
}

/// Takes what means nothing off the end of a list: `1.0.0` is `1`.
fn normalized(mut items: Vec<Item>) -> Vec<Item> {
    let mut at = items.len();
    while at > 0 {
        at -= 1;
        if items[at].is_nothing() {
            items.remove(at);
        } else if !matches!(items[at], Item::List(_)) {
            break;
        }
    }
    items
}

/// Reads a version. Every text is one. A list begins after each `-`, and where letters and digits
/// meet; it is the last item of the list before it.
fn parse(text: &str) -> Vec<Item> {
    let text = text.to_ascii_lowercase();
    let (mut done, mut list) = (Vec::new(), Vec::new());
    let (mut start, mut in_number) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '.' | '-' => {
                list.push(match &text[start..at] {
                    "" => Item::number("0"),
                    part => Item::of(part, in_number),
                });
                start = at + 1;
                if c == '-' {
                    done.push(std::mem::take(&mut list));
                }
            }
            c => {
                let is_digit = c.is_ascii_digit();
                if is_digit != in_number && at > start {
                    let part = &text[start..at];
                    list.push(if in_number { Item::number(part) } else { Item::word(part, true) });
                    start = at;
                    done.push(std::mem::take(&mut list));
                }
                in_number = is_digit;
            }
        }
    }
    if start < text.len() {
        list.push(Item::of(&text[start..], in_number));
    }
    done.push(list);
    let mut whole: Option<Vec<Item>> = None;
    for list in done.into_iter().rev() {
        let mut list = normalized(list);
        if let Some(inner) = whole.take().filter(|inner| !inner.is_empty()) {
            list.push(Item::List(inner));
        }
        whole = Some(list);
    }
    whole.unwrap_or_default()
}

/// The most dashes and changes between letters and digits of a version: each is a list in a list.
const DEPTH: usize = 64;

fn is_readable(version: &str) -> bool {
    version.len() <= 4 * DEPTH
        && version.chars().all(|c| c.is_ascii_alphanumeric() || "-~_.+".contains(c))
        && !version.is_empty()
}

/// Whether a version is in a range. `None` if one of them cannot be read.
pub(crate) fn is_in(version: &str, range: &str) -> Option<bool> {
    let version = version.trim();
    if !is_readable(version) {
        return None;
    }
    let version = parse(version);
    if range.contains(['[', '(']) {
        return is_in_intervals(&version, range);
    }
    ranges::satisfies(range, |bound| {
        if !is_readable(bound.version) {
            return None;
        }
        fulfils(bound.operator, compare_lists(&version, &parse(bound.version)))
    })
}

/// Maven's own ranges: `(,1.0],[1.2,1.3)`. A comma separates bounds, and the intervals too.
fn is_in_intervals(version: &[Item], range: &str) -> Option<bool> {
    let range: String = range.chars().filter(|c| !c.is_whitespace()).collect();
    let (mut any, mut rest) = (false, range.as_str());
    while !rest.is_empty() {
        rest = rest.trim_start_matches([',', '|']);
        let closed_below = rest.starts_with('[');
        let inner = rest.strip_prefix(['[', '('])?;
        let end = inner.find([']', ')'])?;
        let closed_above = inner[end..].starts_with(']');
        let (below, above) = match inner[..end].split_once(',') {
            Some((below, above)) => (below, above),
            None => (&inner[..end], &inner[..end]),
        };
        let compared = |bound: &str| -> Option<Option<Ordering>> {
            if bound.is_empty() {
                return Some(None);
            }
            is_readable(bound).then(|| Some(compare_lists(version, &parse(bound))))
        };
        let above_low = compared(below)?
            .is_none_or(|order| if closed_below { order.is_ge() } else { order.is_gt() });
        let below_high = compared(above)?
            .is_none_or(|order| if closed_above { order.is_le() } else { order.is_lt() });
        any |= above_low && below_high;
        rest = &inner[end + 1..];
    }
    Some(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_maven_orders_them() {
        let sorted = [
            "1-alpha2snapshot",
            "1-alpha2",
            "1-alpha-123",
            "1-beta-2",
            "1-beta123",
            "1-m2",
            "1-m11",
            "1-rc",
            "1-cr2",
            "1-rc123",
            "1-SNAPSHOT",
            "1",
            "1-sp",
            "1-sp2",
            "1-sp123",
            "1-abc",
            "1-def",
            "1-pom-1",
            "1-1-snapshot",
            "1-1",
            "1-2",
            "1-123",
            "1.0.1",
            "2.0",
            "2.0.1",
            "2.10",
        ];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                let compared = compare_lists(&parse(one), &parse(other));
                assert_eq!(compared, at.cmp(&other_at), "{one} {other}");
            }
        }
        for (one, other) in [("1", "1.0"), ("1.0.0", "1-0"), ("1-ga", "1"), ("1a1", "1-alpha-1")] {
            assert!(compare_lists(&parse(one), &parse(other)).is_eq(), "{one} {other}");
        }
    }

    #[test]
    fn ranges_of_maven_hold() {
        for (version, range, expected) in [
            ("2.14.1", ">=2.13.0, <2.15.0", Some(true)),
            ("2.9.10.7", "<2.9.10.8", Some(true)),
            ("0.3.0m1", "< 0.3.0M2", Some(true)),
            ("9.2.25.v20180605", "< 9.2.25.v20180606", Some(true)),
            ("1.0.0", "(,1.0.5.RELEASE],[2.0.0.RELEASE,2.0.16.RELEASE)", Some(true)),
            ("2.0.16.RELEASE", "(,1.0.5.RELEASE],[2.0.0.RELEASE,2.0.16.RELEASE)", Some(false)),
            ("1.0", "[1.0]", Some(true)),
            ("0.0.0-alpha", "<0-z", Some(true)),
            ("1.0", "[1.0", None),
            ("1/0", "<2", None),
            ("1.0", "< a/b", None),
        ] {
            assert_eq!(is_in(version, range), expected, "{version} {range}");
        }
    }
}
