//! Finds the setting that an operator may have meant by an unknown key.

use std::collections::BTreeSet;

/// The remedy for an unknown key: the nearest setting of the same group, otherwise a setting with
/// that name elsewhere, otherwise the settings of the group.
pub(crate) fn remedy(setting: &str, known: &BTreeSet<String>) -> String {
    let (group, key) = split(setting);
    let nested =
        |group: &str, key: &str| format!("write {key} under `{group}:`, or remove the line");
    if known.contains(setting) {
        // the operator wrote the dotted form as a key
        return nested(group, key);
    }
    let siblings =
        || known.iter().map(|k| split(k)).filter(|(g, _)| *g == group).map(|(_, key)| key);
    let nearest = siblings().map(|sibling| (distance(key, sibling), sibling)).min();
    if let Some((distance, nearest)) = nearest
        && distance <= 1 + key.chars().count() / 4
    {
        return format!("write {nearest} if that is what {key} means, or remove the line");
    }
    match known.iter().map(|k| split(k)).find(|(_, elsewhere)| *elsewhere == key) {
        Some(("", _)) => return format!("write {key} at the top level, or remove the line"),
        Some((group, _)) => return nested(group, key),
        None => {}
    }
    let all: Vec<_> = siblings().collect();
    format!("remove {key}, or use one of {}", all.join(", "))
}

/// Splits a setting in dotted form into group and key. The group is empty at the top level.
pub(crate) fn split(setting: &str) -> (&str, &str) {
    setting.rsplit_once('.').unwrap_or(("", setting))
}

/// The edit distance (Levenshtein). Keys are cut to a length that no setting has.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
