//! From text to a tree of nodes that know their lines.
//!
//! node.yaml uses a small part of YAML: mappings, scalars and comments. Anchors, aliases, tags and
//! several documents in one file are refused, because each of them changes a file's meaning in a
//! way that is easy to overlook. Scalars keep their text, so that a region called `no` stays `no`.
//! Duplicate keys are kept, too, and the walker reports them.
//!
//! The tree is built from the parser's events without recursion, and its depth is limited, so no
//! document can exhaust the stack.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// The maximum depth of a document. Settings are at most three levels deep.
const DEPTH_LIMIT: usize = 16;

/// A part of the document, with the line where it starts.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

/// The kind of a node.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Empty, `~` or `null`, unquoted.
    Null,
    /// A scalar's text without its quotes.
    Text(String),
    /// Keys in the order of the document, duplicates included.
    Mapping(Vec<(Node, Node)>),
    /// A list. No setting is a list, so its entries are not kept.
    Sequence,
}

impl Kind {
    /// The kind in words for the operator.
    pub(crate) fn noun(&self) -> &'static str {
        match self {
            Kind::Null => "nothing",
            Kind::Text(_) => "a single value",
            Kind::Mapping(_) => "a group of settings",
            Kind::Sequence => "a list",
        }
    }
}

/// Why the text is not a configuration.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) line: usize,
    pub(crate) problem: String,
    pub(crate) remedy: &'static str,
}

/// A collection that is not complete yet.
struct Open {
    node: Node,
    key: Option<Node>,
}

/// Reads one document. An empty one counts as an empty mapping.
pub(crate) fn read(text: &str) -> Result<Node, Unreadable> {
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|error| Unreadable {
            line: error.marker().line(),
            problem: format!("the file is not valid YAML here ({})", error.info()),
            remedy: "check the indentation, colons and quotes on this line and the one before",
        })?;
        let line = span.start.line();
        let refuse =
            |problem: &str, remedy| Err(Unreadable { line, problem: problem.to_owned(), remedy });
        if let Event::Scalar(_, _, anchor, tag) = &event
            && (*anchor != 0 || tag.is_some())
        {
            return refuse("anchors and tags are not used in this file", "write the plain value");
        }
        if let Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) = &event
            && (*anchor != 0 || tag.is_some())
        {
            return refuse(
                "anchors and tags are not used in this file",
                "write the settings without them",
            );
        }
        let finished = match event {
            Event::Alias(_) => {
                return refuse("aliases are not used in this file", "write the value out");
            }
            Event::DocumentStart(_) if root.is_some() => {
                return refuse("a second document starts here", "keep one document a file");
            }
            Event::Scalar(text, style, ..) => Node { line, kind: scalar(&text, style) },
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                if open.len() == DEPTH_LIMIT {
                    return refuse("the document is nested too deeply", "remove the inner levels");
                }
                let kind = match event {
                    Event::MappingStart(..) => Kind::Mapping(Vec::new()),
                    _ => Kind::Sequence,
                };
                open.push(Open { node: Node { line, kind }, key: None });
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(collection) => collection.node,
                None => continue,
            },
            _ => continue,
        };
        match open.last_mut() {
            None => root = Some(finished),
            Some(parent) => add(parent, finished),
        }
    }
    match root {
        None | Some(Node { kind: Kind::Null, .. }) => {
            Ok(Node { line: 1, kind: Kind::Mapping(Vec::new()) })
        }
        Some(root) => Ok(root),
    }
}

fn add(parent: &mut Open, child: Node) {
    if let Kind::Mapping(entries) = &mut parent.node.kind {
        match parent.key.take() {
            None => parent.key = Some(child),
            Some(key) => entries.push((key, child)),
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Kind {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Kind::Null,
        _ => Kind::Text(text.to_owned()),
    }
}
