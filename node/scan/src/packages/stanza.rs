//! Fields as mail has them (RFC 822): `Name: value`, with lines that go on after a space.

/// The fields of one stanza.
#[derive(Debug, Default)]
pub(super) struct Stanza<'a> {
    fields: Vec<(&'a str, String)>,
}

impl Stanza<'_> {
    /// The first value of a field; empty where there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        let named = |(told, _): &&(&str, String)| told.eq_ignore_ascii_case(name);
        self.fields.iter().find(named).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// All values of a field.
    pub(super) fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let named = self.fields.iter().filter(|(told, _)| told.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }
}

/// The stanzas of a text, which empty lines separate. Of fields that go on only the first line is
/// kept: no field that is read here needs more.
pub(super) fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut stanza = Stanza::default();
        for line in lines.by_ref() {
            if line.trim().is_empty() {
                if stanza.fields.is_empty() {
                    continue;
                }
                return Some(stanza);
            }
            if line.starts_with([' ', '\t']) {
                continue;
            }
            if let Some((name, value)) = line.split_once(':') {
                stanza.fields.push((name, value.trim().to_owned()));
            }
        }
        (!stanza.fields.is_empty()).then_some(stanza)
    })
}
