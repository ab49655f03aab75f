//! What the command line shows of texts that others wrote: it must not command the terminal, and
//! must not break the table it is in.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

/// The longest cell of a table, in characters. A longer one is cut; JSON has it whole.
const LONGEST: usize = 256;

/// Whether a character moves, hides or turns around what a terminal shows: control characters, and
/// those that only format (Unicode's category Cf).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Asks a question whose answer is yes or no. Where there is nobody to ask, it is an error that says
/// `without`.
pub(super) fn agreed(question: &str, without: &str) -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(io::Error::other(without.to_owned()));
    }
    print!("{question} [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A text for people, on one line.
pub(super) fn safe(text: &str) -> String {
    text.chars()
        .flat_map(|c| if is_unsafe(c) { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// A value as JSON, which means the same and has no such character in it.
pub(super) fn safe_json(value: &Value) -> String {
    let mut shown = String::new();
    for c in format!("{value:#}").chars() {
        // outside of its strings, JSON has line feeds only
        if c != '\n' && is_unsafe(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A table whose columns are as wide as their widest cells.
pub(super) fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let cell = |text: &String| {
        let text = safe(text);
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    };
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut out = line(head.to_vec());
    for row in &rows {
        out.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_widest_cell_and_long_cells_are_cut() {
        let rows = |long: &str| vec![vec![long.into(), "x".into()], vec!["y".into(), "z".into()]];
        assert_eq!(table(&["A", "B"], rows("long")), "A     B\nlong  x\ny     z\n");
        let out = table(&["A", "B"], rows(&"ä".repeat(70_000)));
        let widths: Vec<usize> = out.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths, [LONGEST + 4; 3]);
    }

    #[test]
    fn what_others_wrote_neither_moves_the_cursor_nor_turns_the_line_around() {
        let odd = "a\u{1b}[2J\u{9b}\u{202e}\u{200b}\n\u{e0041}ü";
        let table = table(&["A"], vec![vec![odd.to_owned()]]);
        assert_eq!(table.lines().count(), 2);
        let json = safe_json(&serde_json::json!({ "of": odd }));
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["of"], odd, "it means the same");
        for shown in [table, json] {
            assert!(shown.chars().all(|c| c == '\n' || !is_unsafe(c)), "{shown:?}");
            assert!(shown.contains('ü'));
        }
    }
}
