//! From text to a tree of nodes that know their lines.
//!
//! node.yaml uses a small part of YAML: mappings, scalars and comments. Anchors, aliases, tags and
//! several documents in one file are refused, because each of them makes a file mean something that
//! its reader does not see. Scalars keep the text as written, so that a region called `no` stays
//! `no`. Duplicate keys are kept too: the walker reports them.
//!
//! The tree is built from the parser's events without recursion and with a limit on depth, so no
//! document can exhaust the stack.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// No setting lies deeper than three levels; far below this a document is not a configuration.
const DEPTH_LIMIT: usize = 16;

/// A part of the document and the line it starts on.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

/// What a node is, as far as a configuration cares.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Nothing, `~` or `null`, unquoted.
    Null,
    /// A scalar as written, without its quotes.
    Text(String),
    /// Keys in the order of the document, duplicates included.
    Mapping(Vec<(Node, Node)>),
    /// A list; no setting is one, so only its presence is of interest.
    Sequence,
}

impl Kind {
    /// What an operator would call it.
    pub(crate) fn noun(&self) -> &'static str {
        match self {
            Kind::Null => "nothing",
            Kind::Text(_) => "a single value",
            Kind::Mapping(_) => "a group of settings",
            Kind::Sequence => "a list",
        }
    }
}

/// Why the text is no configuration at all.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) line: usize,
    pub(crate) problem: String,
    pub(crate) remedy: &'static str,
}

/// A collection that is still being read.
struct Open {
    node: Node,
    key: Option<Node>,
}

/// Reads one document. An empty one is an empty mapping.
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
