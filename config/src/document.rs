//! The walker over a document: hands out settings, collects mistakes, and finds the keys that are
//! not settings.
//!
//! There is no list of known settings: a setting is known because the code asked for it. So the
//! list in a remedy and the settings that are read cannot differ. A setting with a mistake keeps
//! its default, and the walk continues. [`Document::is_sound`] keeps later checks from complaining
//! about a value that was never read.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

use crate::{
    mistake::Mistake,
    nearest,
    tree::{Kind, Node},
    value::{self, Fault},
};

/// One file that is being read.
pub(crate) struct Document {
    file: String,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    mistakes: Vec<Mistake>,
    /// The settings that were asked for.
    known: BTreeSet<String>,
    /// The settings and groups in the file, with their lines.
    lines: BTreeMap<String, usize>,
    /// Keys in the file that were not asked for.
    unknown: Vec<(String, usize)>,
    /// Groups that are not mappings, so that their contents are unknown.
    unread: Vec<String>,
}

impl Document {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), seen: RefCell::default() }
    }

    /// Records a mistake at the line of `setting`, otherwise at its group's line, otherwise without
    /// a line.
    pub(crate) fn mistake(
        &self,
        setting: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let group = setting.rsplit_once('.').map_or("", |(group, _)| group);
        let line = self.line(setting).or_else(|| self.line(group)).unwrap_or(0);
        self.mistake_at(line, setting, problem, remedy);
    }

    /// Records a mistake at a line.
    pub(crate) fn mistake_at(
        &self,
        line: usize,
        setting: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.seen.borrow_mut().mistakes.push(Mistake {
            file: self.file.clone(),
            line,
            setting: setting.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    /// Whether no mistake was found in these settings or their groups, so that their values may be
    /// compared.
    pub(crate) fn is_sound(&self, settings: &[&str]) -> bool {
        let seen = self.seen.borrow();
        let within =
            |setting: &str, group: &String| group.is_empty() || nearest::split(setting).0 == group;
        !seen.mistakes.iter().any(|m| settings.contains(&m.setting.as_str()))
            && !seen
                .unread
                .iter()
                .any(|group| settings.iter().any(|setting| within(setting, group)))
    }

    /// Whether the file contains this setting.
    pub(crate) fn is_written(&self, setting: &str) -> bool {
        self.line(setting).is_some()
    }

    /// The settings that were asked for, in dotted form.
    #[cfg(test)]
    pub(crate) fn known(&self) -> BTreeSet<String> {
        self.seen.borrow().known.clone()
    }

    /// The settings in the file, in dotted form.
    #[cfg(test)]
    pub(crate) fn written(&self) -> BTreeSet<String> {
        self.seen.borrow().lines.keys().cloned().collect()
    }

    fn line(&self, setting: &str) -> Option<usize> {
        self.seen.borrow().lines.get(setting).copied()
    }

    /// Ends the walk: reports the keys that were not asked for, and returns all mistakes in the
    /// order of their lines.
    pub(crate) fn into_mistakes(self) -> Vec<Mistake> {
        let unknown = std::mem::take(&mut self.seen.borrow_mut().unknown);
        for (setting, line) in unknown {
            let remedy = nearest::remedy(&setting, &self.seen.borrow().known);
            self.mistake_at(line, &setting, "there is no such setting", remedy);
        }
        let mut mistakes = self.seen.into_inner().mistakes;
        mistakes.sort_by_key(|m| m.line);
        mistakes
    }
}

/// A mapping of the document, and the path to it.
pub(crate) struct Section<'d> {
    document: &'d Document,
    path: String,
    entries: BTreeMap<String, Node>,
}

impl<'d> Section<'d> {
    /// Reads a mapping. Anything else is a mistake, and is read as an empty mapping.
    pub(crate) fn new(document: &'d Document, path: &str, node: Node) -> Self {
        let mut section = Self { document, path: path.to_owned(), entries: BTreeMap::new() };
        let written = match node.kind {
            Kind::Mapping(written) => written,
            Kind::Null => Vec::new(),
            other => {
                let problem = format!("is {} where a group of settings belongs", other.noun());
                let place = if path.is_empty() { "the file" } else { path };
                document.mistake_at(
                    node.line,
                    path,
                    problem,
                    format!("write `key: value` lines in {place}"),
                );
                document.seen.borrow_mut().unread.push(path.to_owned());
                Vec::new()
            }
        };
        for (key, value) in written {
            let Kind::Text(name) = key.kind else {
                document.mistake_at(
                    key.line,
                    path,
                    "has a key that is not a word",
                    "write the name of a setting",
                );
                continue;
            };
            let setting = section.full(&name);
            if let Some(first) = document.line(&setting) {
                let remedy = format!("keep one of the two lines of {setting}");
                document.mistake_at(
                    key.line,
                    &setting,
                    format!("is written a second time (first on line {first})"),
                    remedy,
                );
                continue;
            }
            document.seen.borrow_mut().lines.insert(setting, key.line);
            section.entries.insert(name, value);
        }
        section
    }

    /// A group within this one. An absent group is read as an empty one.
    pub(crate) fn section(&mut self, key: &str) -> Section<'d> {
        self.optional_section(key).unwrap_or_else(|| Section {
            document: self.document,
            path: self.full(key),
            entries: BTreeMap::new(),
        })
    }

    /// A group that may be absent; `null` counts as absent.
    pub(crate) fn optional_section(&mut self, key: &str) -> Option<Section<'d>> {
        let path = self.full(key);
        self.document.seen.borrow_mut().known.insert(path.clone());
        let node = self.entries.remove(key).filter(|node| !matches!(node.kind, Kind::Null))?;
        Some(Section::new(self.document, &path, node))
    }

    /// A setting that may be absent; `null` counts as absent.
    pub(crate) fn optional<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        self.take(key, None, parse)
    }

    /// A setting with a default, which is the present value of `target`.
    pub(crate) fn read<T>(
        &mut self,
        key: &str,
        target: &mut T,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) {
        let on_null = format!("write a value after `{key}:` or remove the line for the default");
        if let Some(value) = self.take(key, Some(on_null), parse) {
            *target = value;
        }
    }

    /// A required setting. Returns `None` after it has recorded a mistake.
    pub(crate) fn required<T>(
        &mut self,
        key: &str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let setting = self.full(key);
        if !self.document.is_written(&setting) && self.document.is_sound(&[&setting]) {
            self.document.mistake(
                &setting,
                "is missing",
                format!("add the line `{key}: {example}`"),
            );
        }
        self.take(key, Some(format!("write e.g. `{key}: {example}`")), parse)
    }

    /// A setting that an earlier build had. Any value of it is accepted; returns whether there is
    /// one.
    pub(crate) fn retired(&mut self, key: &str) -> bool {
        self.entries.remove(key).is_some()
    }

    /// A boolean setting with a default.
    pub(crate) fn flag(&mut self, key: &str, target: &mut bool) {
        self.read(key, target, |text| value::choice(text, &[("true", true), ("false", false)]));
    }

    /// A group whose keys are chosen by the operator, each with a single value.
    pub(crate) fn pairs<V>(
        mut self,
        key: impl Fn(&str) -> Result<String, Fault>,
        value: impl Fn(&str) -> Result<V, Fault>,
    ) -> BTreeMap<String, V> {
        let mut pairs = BTreeMap::new();
        for (name, node) in std::mem::take(&mut self.entries) {
            let setting = self.full(&name);
            let read = match &node.kind {
                Kind::Text(text) => key(&name).and_then(|key| Ok((key, value(text)?))),
                other => {
                    let problem = format!("is {} where a single value belongs", other.noun());
                    Err(Fault::new(problem, format!("write one value on the line of {name}")))
                }
            };
            match read {
                Ok((key, value)) => drop(pairs.insert(key, value)),
                Err(fault) => {
                    self.document.mistake_at(node.line, &setting, fault.problem, fault.remedy)
                }
            }
        }
        pairs
    }

    /// A duration with a default and bounds.
    pub(crate) fn duration(
        &mut self,
        key: &str,
        target: &mut Duration,
        bounds: RangeInclusive<Duration>,
    ) {
        let default = *target;
        self.read(key, target, |text| {
            within(value::duration(text, default)?, &bounds, value::written_duration)
        });
    }

    /// A size in bytes with a default and bounds.
    pub(crate) fn size(&mut self, key: &str, target: &mut u64, bounds: RangeInclusive<u64>) {
        let default = *target;
        self.read(key, target, |text| {
            within(value::size(text, default)?, &bounds, value::written_size)
        });
    }

    /// A size in bytes with a default and bounds; `null` means no limit.
    pub(crate) fn limit(
        &mut self,
        key: &str,
        target: &mut Option<u64>,
        bounds: RangeInclusive<u64>,
    ) {
        let null = self.entries.get(key).is_some_and(|node| matches!(node.kind, Kind::Null));
        let default = target.unwrap_or(*bounds.end());
        let read = self.take(key, None, |text| {
            within(value::size(text, default)?, &bounds, value::written_size)
        });
        if null || read.is_some() {
            *target = read;
        }
    }

    /// A number with a default and bounds.
    pub(crate) fn count<N>(&mut self, key: &str, target: &mut N, bounds: RangeInclusive<N>)
    where
        N: Copy + Into<u64> + TryFrom<u64>,
    {
        let default = (*target).into();
        let wide = (*bounds.start()).into()..=(*bounds.end()).into();
        self.read(key, target, |text| {
            let number = within(value::count(text, default)?, &wide, |n| n.to_string())?;
            N::try_from(number).map_err(|_| {
                Fault::new(format!("'{text}' is too large"), format!("write e.g. {default}"))
            })
        });
    }

    /// The entries of this group, each a name and a size within bounds. The names are chosen by the
    /// operator.
    pub(crate) fn sizes(
        mut self,
        example: (&str, u64),
        bounds: RangeInclusive<u64>,
    ) -> BTreeMap<String, u64> {
        let mut sizes = BTreeMap::new();
        for name in self.entries.keys().cloned().collect::<Vec<_>>() {
            let parse = |text: &str| {
                value::name(&name, example.0)?;
                within(value::size(text, example.1)?, &bounds, value::written_size)
            };
            let on_null = format!("write e.g. `{name}: {}`", value::written_size(example.1));
            if let Some(size) = self.take(&name, Some(on_null), parse) {
                sizes.insert(name, size);
            }
        }
        sizes
    }

    /// Takes a setting. `on_null` is the remedy for a setting without a value; if it is `None`,
    /// `null` is a valid value.
    fn take<T>(
        &mut self,
        key: &str,
        on_null: Option<String>,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let setting = self.full(key);
        self.document.seen.borrow_mut().known.insert(setting.clone());
        let node = self.entries.remove(key)?;
        let fault = match &node.kind {
            Kind::Text(text) => match parse(text) {
                Ok(value) => return Some(value),
                Err(fault) => fault,
            },
            Kind::Null => Fault::new("has no value", on_null?),
            other => Fault::new(
                format!("is {} where a single value belongs", other.noun()),
                format!("write one value on the line of {key}"),
            ),
        };
        self.document.mistake(&setting, fault.problem, fault.remedy);
        None
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// Keys that are left when a section is dropped were not asked for.
impl Drop for Section<'_> {
    fn drop(&mut self) {
        for key in std::mem::take(&mut self.entries).into_keys() {
            let setting = self.full(&key);
            let line = self.document.line(&setting).unwrap_or(0);
            self.document.seen.borrow_mut().unknown.push((setting, line));
        }
    }
}

fn within<T: PartialOrd + Copy>(
    value: T,
    bounds: &RangeInclusive<T>,
    written: impl Fn(T) -> String,
) -> Result<T, Fault> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let (low, high) = (written(*bounds.start()), written(*bounds.end()));
    Err(Fault::new(
        format!("{} is out of range", written(value)),
        format!("write a value from {low} to {high}"),
    ))
}
