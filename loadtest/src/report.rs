//! Writes what was found: `NAME.json` for programs, `NAME.md` for people.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::machine::{self, Origin};

/// A table of text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(head: &[&str]) -> Self {
        Table { head: head.iter().map(|&column| column.to_owned()).collect(), rows: Vec::new() }
    }

    /// With one more row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn write(&self, out: &mut String) {
        let mut line = |cells: &[String]| {
            let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        };
        line(&self.head);
        line(&vec!["---".to_owned(); self.head.len()]);
        self.rows.iter().for_each(|row| line(row));
        out.push('\n');
    }
}

/// A report in the making.
#[derive(Debug)]
pub(crate) struct Report {
    name: &'static str,
    origin: Origin,
    servers: Vec<(String, String)>,
    text: String,
    found: serde_json::Map<String, Value>,
}

impl Report {
    /// An empty one: its files will be `NAME.json` and `NAME.md`. Begin it before anything is
    /// measured.
    pub(crate) fn new(name: &'static str, title: &str) -> Self {
        let text = format!("# {title}\n\n");
        Report {
            name,
            origin: Origin::now(),
            servers: Vec::new(),
            text,
            found: serde_json::Map::new(),
        }
    }

    /// Names a server and its version.
    pub(crate) fn server(&mut self, name: &str, version: &str) {
        self.servers.push((name.to_owned(), version.to_owned()));
    }

    /// Adds a heading.
    pub(crate) fn heading(&mut self, text: &str) {
        let _ = writeln!(self.text, "## {text}\n");
    }

    /// Adds a paragraph.
    pub(crate) fn say(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}\n");
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, table: &Table) {
        table.write(&mut self.text);
    }

    /// Adds a field to the part for programs.
    pub(crate) fn record(&mut self, field: &str, value: Value) {
        self.found.insert(field.to_owned(), value);
    }

    /// Adds where it comes from, and writes both files into a folder.
    pub(crate) fn write(mut self, folder: &Path) -> Result<()> {
        let load_after = machine::load();
        self.write_origin(&load_after);
        let servers: serde_json::Map<_, _> = self
            .servers
            .iter()
            .map(|(name, version)| (name.clone(), version.clone().into()))
            .collect();
        let mut whole = json!({
            "report": self.name, "origin": self.origin, "load_after": load_after, "servers": servers,
        });
        if let Value::Object(fields) = &mut whole {
            fields.append(&mut self.found);
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (for_people, for_programs) =
            (folder.join(format!("{}.md", self.name)), folder.join(format!("{}.json", self.name)));
        fs::write(&for_people, &self.text)?;
        fs::write(&for_programs, serde_json::to_string_pretty(&whole)? + "\n")?;
        print!("{}", self.text);
        eprintln!("loadtest: wrote {} and {}", for_people.display(), for_programs.display());
        Ok(())
    }

    fn write_origin(&mut self, load_after: &str) {
        let origin = self.origin.clone();
        self.heading("Where this comes from");
        let mut table = Table::new(&["what", "value"]);
        let mut row = |what: &str, value: String| table.row(vec![what.to_owned(), value]);
        row("command", format!("`{}`", origin.command));
        row("date", origin.date);
        row("commit", origin.commit);
        row(
            "machine",
            format!("{} cores of {}, {:.1} GiB", origin.cores, origin.cpu, origin.memory_gib),
        );
        row(
            "kernel",
            format!("Linux {}; temporary folders on {}", origin.kernel, origin.file_system),
        );
        row("load", format!("{} before, {load_after} after", origin.load_before));
        for (name, version) in &self.servers {
            row(name, version.clone());
        }
        if let Some(caution) = origin.caution {
            row("caution", caution);
        }
        self.table(&table);
        self.say(
            "Clients and servers share the machine. CPU of the server's processes is the solid figure, speed the noisy one; \
             both count only as ratios within one run.",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_two_files_that_say_the_same() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut report = Report::new("trial", "A trial");
        report.server("peer", "1.0 | lean");
        report.heading("Part");
        let mut table = Table::new(&["a", "b"]);
        table.row(vec!["1".into(), "2".into()]);
        report.table(&table);
        report.record("figure", json!(7));
        report.write(&folder.path().join("deep")).unwrap();
        let text = fs::read_to_string(folder.path().join("deep/trial.md")).unwrap();
        assert!(
            text.starts_with("# A trial\n\n## Part\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n"),
            "{text}"
        );
        assert!(text.contains("| peer | 1.0 \\| lean |"), "{text}");
        let json: Value =
            serde_json::from_slice(&fs::read(folder.path().join("deep/trial.json")).unwrap())
                .unwrap();
        assert_eq!((&json["figure"], &json["servers"]["peer"]), (&json!(7), &json!("1.0 | lean")));
    }
}
