//! What a client wants of a list: Harbor's `q` and `sort` (its `src/lib/q/builder.go`).
//!
//! | `q` | an entry is wanted if its field |
//! |---|---|
//! | `k=v` | is `v` |
//! | `k=~v` | has `v` in it; capitals do not matter |
//! | `k=[a~b]` | is from `a` to `b`; one of them may be missing |
//! | `k={a b}` | is `a` or `b` |
//! | `k=(a b)` | has both `a` and `b`, if it has several values |
//!
//! Conditions are separated by commas, and all must hold. `sort` names fields, separated by commas;
//! a `-` before a field turns its order round.
//!
//! Parsing knows the grammar only. [`Query::about`] then looks up the fields of the list: one that the
//! list does not have is an error, because a client that misspells a condition must not take the
//! answer for what it asked for.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::moment::Timestamp;

/// Why `q` or `sort` cannot be answered: a sentence for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadQuery(String);

/// What a field must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This.
    Is(String),
    /// A text that has this in it.
    Has(String),
    /// From the first to the second, both included. One of them may be missing.
    Between(Option<String>, Option<String>),
    /// One of these.
    Any(Vec<String>),
    /// All of these.
    All(Vec<String>),
}

/// Parsed `q` and `sort`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    conditions: Vec<(String, Wanted)>,
    /// Fields, each with whether its order is turned round.
    sort: Vec<(String, bool)>,
}

/// A field's name without what clients write differently: Harbor takes `ProjectID`, `project_id` and
/// `projectid` for one field.
fn plain(name: &str) -> String {
    name.trim().chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

impl Query {
    /// Parses both; empty ones want everything, in the list's own order. Of two conditions on one
    /// field the last one counts, as in Harbor.
    pub fn parse(q: &str, sort: &str) -> Result<Self, BadQuery> {
        let mut query = Query::default();
        for text in q.split(',').filter(|_| !q.trim().is_empty()) {
            let wrong = || {
                BadQuery(format!(
                    "q: '{text}' is not a condition: k=v, k=~v, k=[a~b], k={{a b}} or k=(a b)"
                ))
            };
            let (name, value) = text.split_once('=').ok_or_else(wrong)?;
            let name = plain(name);
            if name.is_empty() {
                return Err(wrong());
            }
            let wanted = Wanted::parse(value).ok_or_else(wrong)?;
            query.conditions.retain(|(other, _)| *other != name);
            query.conditions.push((name, wanted));
        }
        for text in sort.split(',').filter(|_| !sort.trim().is_empty()) {
            let (name, reverse) = match text.trim().strip_prefix('-') {
                Some(name) => (plain(name), true),
                None => (plain(text), false),
            };
            if name.is_empty() {
                return Err(BadQuery("sort: a field is missing between two commas".into()));
            }
            query.sort.push((name, reverse));
        }
        Ok(query)
    }

    /// The value that a field must have exactly, if there is such a condition.
    pub fn exactly(&self, name: &str) -> Option<&str> {
        let name = plain(name);
        let found = self.conditions.iter().find(|(other, _)| *other == name);
        found.and_then(|(_, wanted)| match wanted {
            Wanted::Is(value) => Some(value.as_str()),
            _ => None,
        })
    }

    /// What is wanted of a list whose entries have these fields.
    pub fn about<'f, T>(&self, fields: &'f [Field<T>]) -> Result<Selection<'f, T>, BadQuery> {
        let find = |name: &str, of: &str| {
            fields.iter().find(|field| plain(field.name) == name).ok_or_else(|| {
                let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
                BadQuery(format!("{of}: '{name}' is no field here; there are {}", names.join(", ")))
            })
        };
        let mut selection = Selection { conditions: Vec::new(), sort: Vec::new() };
        for (name, wanted) in &self.conditions {
            let field = find(name, "q")?;
            selection.conditions.push((field, field.kind.check(field.name, wanted)?));
        }
        for (name, reverse) in &self.sort {
            let field = find(name, "sort")?;
            if field.kind == Kind::Several {
                let message = format!("sort: {} has several values, and no order", field.name);
                return Err(BadQuery(message));
            }
            selection.sort.push((field, *reverse));
        }
        Ok(selection)
    }
}

impl Wanted {
    fn parse(value: &str) -> Option<Self> {
        let within = |open, close| value.strip_prefix(open)?.strip_suffix(close);
        let item = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
        let list = |text: &str| {
            let items: Vec<String> =
                text.split(' ').map(item).filter(|item| !item.is_empty()).collect();
            (!items.is_empty()).then_some(items)
        };
        match value.chars().next()? {
            '~' => Some(Wanted::Has(value[1..].to_owned())).filter(|_| value.len() > 1),
            '[' => {
                let (from, to) = within('[', ']')?.split_once('~')?;
                let end = |text: &str| Some(item(text)).filter(|text| !text.is_empty());
                let (from, to) = (end(from), end(to));
                let open = from.is_none() && to.is_none();
                Some(Wanted::Between(from, to)).filter(|_| !open && !value.contains("~~"))
            }
            '{' => within('{', '}').and_then(list).map(Wanted::Any),
            '(' => within('(', ')').and_then(list).map(Wanted::All),
            // a value that begins like one of these is written with a backslash
            '\\' => Some(Wanted::Is(value[1..].to_owned())),
            _ => Some(Wanted::Is(value.to_owned())),
        }
    }

    /// The same with each value changed by `change`.
    fn map(&self, change: impl Fn(&str) -> Result<String, BadQuery>) -> Result<Wanted, BadQuery> {
        let all = |values: &[String]| values.iter().map(|v| change(v)).collect::<Result<_, _>>();
        let end = |value: &Option<String>| value.as_deref().map(&change).transpose();
        Ok(match self {
            Wanted::Is(value) => Wanted::Is(change(value)?),
            Wanted::Has(part) => Wanted::Has(part.to_lowercase()),
            Wanted::Between(from, to) => Wanted::Between(end(from)?, end(to)?),
            Wanted::Any(values) => Wanted::Any(all(values)?),
            Wanted::All(values) => Wanted::All(all(values)?),
        })
    }
}

/// What kind of values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Texts.
    Text,
    /// Whole numbers.
    Number,
    /// Times. A condition has RFC 3339 in UTC, or the beginning of one: a day means all of it.
    Time,
    /// `true` or `false`.
    Flag,
    /// Several texts. `*` means that there is one, `nil` that there is none.
    Several,
}

impl Kind {
    /// Checks that a condition has values of this kind.
    fn check(self, name: &str, wanted: &Wanted) -> Result<Wanted, BadQuery> {
        let wrong = |what: &str, value: &str| {
            BadQuery(format!("q: {name} is {what}, and '{value}' is none"))
        };
        if matches!((self, wanted), (Kind::Several, Wanted::Between(..))) {
            return Err(BadQuery(format!("q: {name} has several values, and no range")));
        }
        wanted.map(|value| match self {
            Kind::Text | Kind::Several => Ok(value.to_owned()),
            Kind::Number => {
                let number = value.trim().parse::<i64>();
                number.map(|n| n.to_string()).map_err(|_| wrong("a whole number", value))
            }
            Kind::Flag => match value {
                "true" | "1" => Ok("true".into()),
                "false" | "0" => Ok("false".into()),
                _ => Err(wrong("true or false", value)),
            },
            Kind::Time => {
                let time = value.replacen(' ', "T", 1);
                match is_beginning_of_time(&time) {
                    true => Ok(time),
                    false => Err(wrong("a time (2024-02-29T12:34:56)", value)),
                }
            }
        })
    }
}

/// Whether this is the beginning of a time in RFC 3339 in UTC, at least a year.
fn is_beginning_of_time(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00Z";
    let fits =
        |(is, form): (&u8, &u8)| if *form == b'0' { is.is_ascii_digit() } else { is == form };
    (4..=FORM.len()).contains(&text.len()) && text.as_bytes().iter().zip(FORM).all(fits)
}

/// The value of an entry's field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value<'a> {
    /// See [`Kind::Text`].
    Text(Cow<'a, str>),
    /// See [`Kind::Number`].
    Number(i64),
    /// See [`Kind::Time`].
    Time(Timestamp),
    /// See [`Kind::Flag`].
    Flag(bool),
    /// See [`Kind::Several`].
    Several(Vec<String>),
}

impl Value<'_> {
    /// Whether it is as wanted; `wanted` was checked by [`Kind::check`].
    fn fits(&self, wanted: &Wanted) -> bool {
        if let Value::Several(values) = self {
            let is = |wanted: &String| match wanted.as_str() {
                "*" => !values.is_empty(),
                "nil" => values.is_empty(),
                _ => values.contains(wanted),
            };
            return match wanted {
                Wanted::Is(value) => is(value),
                Wanted::Has(part) => values.iter().any(|v| v.to_lowercase().contains(part)),
                Wanted::Any(all) => all.iter().any(is),
                Wanted::All(all) => all.iter().all(is),
                Wanted::Between(..) => false,
            };
        }
        let text = match self {
            Value::Text(text) => Cow::Borrowed(&**text),
            Value::Number(number) => number.to_string().into(),
            Value::Time(time) => time.to_string().into(),
            Value::Flag(flag) => flag.to_string().into(),
            Value::Several(_) => Cow::Borrowed(""),
        };
        let is = |value: &String| match self {
            Value::Time(_) => text.starts_with(value.as_str()),
            _ => text == value.as_str(),
        };
        match wanted {
            Wanted::Is(value) => is(value),
            Wanted::Has(part) => text.to_lowercase().contains(part),
            Wanted::Any(all) => all.iter().any(is),
            Wanted::All(all) => all.iter().all(is),
            Wanted::Between(from, to) => {
                let order = |end: &String| match self {
                    // what begins like the end is before it: a day lasts until its end
                    Value::Time(_) if text.starts_with(end.as_str()) => Ordering::Equal,
                    Value::Number(number) => {
                        number.cmp(&end.parse().unwrap_or(if end.starts_with('-') {
                            i64::MIN
                        } else {
                            i64::MAX
                        }))
                    }
                    _ => text.as_ref().cmp(end.as_str()),
                };
                from.as_ref().is_none_or(|from| order(from) != Ordering::Less)
                    && to.as_ref().is_none_or(|to| order(to) != Ordering::Greater)
            }
        }
    }
}

/// A field of a list's entries.
#[derive(Debug)]
pub struct Field<T> {
    name: &'static str,
    kind: Kind,
    of: for<'a> fn(&'a T) -> Value<'a>,
}

impl<T> Field<T> {
    /// A field with its name in Harbor's API. `of` returns values of this kind.
    pub const fn new(name: &'static str, kind: Kind, of: for<'a> fn(&'a T) -> Value<'a>) -> Self {
        Field { name, kind, of }
    }
}

/// A number as a field's value.
pub fn number<'a>(number: u64) -> Value<'a> {
    Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A text as a field's value.
pub fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

/// What is wanted of a list, checked against its fields.
#[derive(Debug)]
pub struct Selection<'f, T> {
    conditions: Vec<(&'f Field<T>, Wanted)>,
    sort: Vec<(&'f Field<T>, bool)>,
}

impl<T> Selection<'_, T> {
    /// Whether an entry is wanted.
    pub fn admits(&self, entry: &T) -> bool {
        self.conditions.iter().all(|(field, wanted)| (field.of)(entry).fits(wanted))
    }

    /// The order of two entries; equal if the client asked for none.
    pub fn order(&self, one: &T, other: &T) -> Ordering {
        let orders = self.sort.iter().map(|(field, reverse)| {
            let order = (field.of)(one).cmp(&(field.of)(other));
            if *reverse { order.reverse() } else { order }
        });
        orders.fold(Ordering::Equal, Ordering::then)
    }

    /// Whether a condition or the order is about this field.
    pub fn needs(&self, name: &str) -> bool {
        let named = |field: &Field<T>| field.name == name;
        self.conditions.iter().any(|(field, _)| named(field))
            || self.sort.iter().any(|(field, _)| named(field))
    }

    /// The fields that the client sorts by, each with whether its order is turned round.
    pub fn sorted_by(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.sort.iter().map(|(field, reverse)| (field.name, *reverse))
    }
}

#[cfg(test)]
mod tests;
