//! Which modules of a crate use which, as their sources say: paths that begin with `crate`, `super`
//! or `self`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module's path within its crate; the crate's root is empty.
pub type Module = Vec<String>;

/// The module in a file, as seen from its crate's `src`.
#[must_use]
pub fn module_of(file: &Path) -> Module {
    let mut parts: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The arrows between rooms (modules right under the root) that `rooms` does not list.
#[must_use]
pub fn forbidden(sources: &BTreeMap<Module, String>, rooms: &[(&str, &[&str])]) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (module, text) in sources {
        let Some(room) = module.first() else { continue };
        let allowed =
            rooms.iter().find(|(name, _)| name == room).map_or(&[][..], |(_, allowed)| allowed);
        for path in used(module, text) {
            let Some(other) =
                path.first().filter(|other| rooms.iter().any(|(name, _)| name == other))
            else {
                continue;
            };
            if other != room && !allowed.contains(&other.as_str()) {
                found.insert(format!("{} uses {}", module.join("::"), path.join("::")));
            }
        }
    }
    found.into_iter().collect()
}

/// Modules that use each other, by whatever way round. That a module and one inside it do is no
/// circle.
#[must_use]
pub fn circles(sources: &BTreeMap<Module, String>) -> Vec<String> {
    let mut arrows: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
    for (module, text) in sources {
        for path in used(module, text) {
            let target = (0..=path.len())
                .rev()
                .find_map(|n| sources.get_key_value(&path[..n]).map(|(target, _)| target));
            let Some(target) = target else { continue };
            if !target.starts_with(module) && !module.starts_with(target) {
                arrows.entry(module).or_default().insert(target);
            }
        }
    }
    let reached = |from: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            for next in arrows.get(module).into_iter().flatten() {
                if seen.insert(*next) {
                    open.push(next);
                }
            }
        }
        seen
    };
    arrows
        .keys()
        .filter(|module| reached(module).contains(**module))
        .map(|module| module.join("::"))
        .collect()
}

/// Every path of its own crate that a module names.
#[must_use]
pub fn used(module: &Module, text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for (at, _) in text.char_indices() {
        let rest = &text[at..];
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            continue;
        }
        if rest.starts_with("crate as ") {
            found.push(vec!["*".to_owned()]);
        }
        if rest.starts_with("crate::") || rest.starts_with("super::") || rest.starts_with("self::")
        {
            let mut paths = Vec::new();
            tree(rest, &mut Vec::new(), &mut paths);
            found.extend(paths.into_iter().map(|path| absolute(module, path)));
        }
    }
    found
}

/// Reads a path or a tree of them (`a::{b, c::d}`), and says how much of the text that was.
fn tree(text: &str, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    let mut at = 0;
    loop {
        at += if text[at..].starts_with("r#") { 2 } else { 0 };
        let is_word = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '*');
        let word: String = text[at..].chars().take_while(is_word).collect();
        at += word.len();
        if !word.is_empty() {
            prefix.push(word);
        }
        if !text[at..].starts_with("::") {
            break;
        }
        at += 2;
        if text[at..].starts_with('{') {
            at += 1;
            loop {
                at += text[at..].len()
                    - text[at..].trim_start_matches(|c: char| c.is_whitespace() || c == ',').len();
                if text[at..].is_empty() || text[at..].starts_with('}') {
                    break;
                }
                let read = tree(&text[at..], prefix, paths);
                // what is no path (`*`, `as x`) is passed over
                at += read.max(text[at..].chars().next().map_or(1, char::len_utf8));
            }
            prefix.truncate(depth);
            return (at + 1).min(text.len());
        }
    }
    if prefix.len() > depth {
        paths.push(prefix.clone());
    }
    prefix.truncate(depth);
    at
}

fn absolute(module: &Module, path: Vec<String>) -> Module {
    let mut base = module.clone();
    let mut words = path.into_iter().peekable();
    match words.peek().map(String::as_str) {
        Some("crate") => {
            base.clear();
            words.next();
        }
        Some("self") => {
            words.next();
        }
        _ => {}
    }
    while words.peek().is_some_and(|word| word == "super") {
        base.pop();
        words.next();
    }
    base.extend(words);
    // the crate itself, under another name
    if base == ["self"] { vec!["*".to_owned()] } else { base }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str) -> Module {
        path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn sources(all: &[(&str, &str)]) -> BTreeMap<Module, String> {
        all.iter().map(|(path, text)| (module(path), (*text).to_owned())).collect()
    }

    const ROOMS: &[(&str, &[&str])] =
        &[("view", &[]), ("writes", &["view"]), ("jobs", &["view", "writes"])];

    #[test]
    fn an_arrow_that_the_table_does_not_list_is_found_however_it_is_written() {
        let found = |path: &str, text: &str| forbidden(&sources(&[(path, text)]), ROOMS);
        assert_eq!(found("jobs::queue", "use crate::writes::Writes;\nuse super::other;"), [""; 0]);
        assert_eq!(
            found("view::edge", "use crate::writes::Writes;"),
            ["view::edge uses writes::Writes"]
        );
        let list = "use crate::{\n    view::Records,\n    jobs::{queue::Queue, other},\n};";
        assert_eq!(
            found("writes", list),
            ["writes uses jobs::other", "writes uses jobs::queue::Queue"]
        );
        assert_eq!(
            found("view::edge::kept", "fn f() { super::super::super::jobs::run() }"),
            ["view::edge::kept uses jobs::run"]
        );
        assert_eq!(
            found("writes", "let x: super::jobs::Job = self::y();"),
            ["writes uses jobs::Job"]
        );
    }

    #[test]
    fn a_circle_is_found_by_whatever_way_round_and_a_room_with_its_parts_is_none() {
        let whole = sources(&[
            ("view", "pub use edge::Edge;"),
            ("view::edge", "use super::Records;"),
            ("a", "use crate::b::B;"),
            ("b", "use super::c::{C, D};"),
            ("c", "use crate::view::Records;"),
        ]);
        assert_eq!(circles(&whole), [""; 0]);
        let mut round = whole;
        round.insert(module("c"), "fn f(a: &crate::a::A) {}".to_owned());
        assert_eq!(circles(&round), ["a", "b", "c"]);
    }
}
