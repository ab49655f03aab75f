//! Reads settings from a file, or from a text.

use std::{fs, io::Read as _, path::Path};

use crate::{
    document::Document,
    meaning,
    mistake::Mistakes,
    settings::{Settings, Tls},
    tree::{self, Node},
};

/// The maximum size of a configuration file in bytes. It is a page of text; a larger file is
/// something else.
const SIZE_LIMIT: u64 = 1 << 20;
/// The first line of a certificate in a PEM file.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Reads a configuration file, and checks that the files that it names exist.
pub fn load(path: &Path) -> Result<Settings, Mistakes> {
    let (file, text) = read_file(path)?;
    let document = Document::new(&file);
    let Some(root) = read_tree(&document, &text) else {
        return Err(Mistakes(document.into_mistakes()));
    };
    let settings = meaning::settings(&document, root);
    check_files(&document, &settings);
    conclude(document, settings)
}

/// Reads a configuration text. `file_name` is only used in mistakes. Does not touch the file
/// system.
pub fn parse(file_name: &str, text: &str) -> Result<Settings, Mistakes> {
    let document = Document::new(file_name);
    let Some(root) = read_tree(&document, text) else {
        return Err(Mistakes(document.into_mistakes()));
    };
    let settings = meaning::settings(&document, root);
    conclude(document, settings)
}

/// The name of a file for mistakes, and its text.
pub(crate) fn read_file(path: &Path) -> Result<(String, String), Mistakes> {
    let file = path.display().to_string();
    let document = Document::new(&file);
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|f| f.take(SIZE_LIMIT + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        document.mistake_at(
            0,
            "",
            format!("cannot be read: {error}"),
            "check that the file exists and who may read it",
        );
        return Err(Mistakes(document.into_mistakes()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((file, text)),
        Err(_) => {
            document.mistake_at(0, "", "is not a text file", "save it as UTF-8");
            Err(Mistakes(document.into_mistakes()))
        }
    }
}

pub(crate) fn read_tree(document: &Document, text: &str) -> Option<Node> {
    if text.len() as u64 > SIZE_LIMIT {
        document.mistake_at(
            0,
            "",
            "is larger than 1MiB",
            "check that this is a configuration file",
        );
        return None;
    }
    match tree::read(text) {
        Ok(root) => Some(root),
        Err(unreadable) => {
            document.mistake_at(unreadable.line, "", unreadable.problem, unreadable.remedy);
            None
        }
    }
}

fn conclude(document: Document, settings: Settings) -> Result<Settings, Mistakes> {
    let mistakes = document.into_mistakes();
    if mistakes.is_empty() { Ok(settings) } else { Err(Mistakes(mistakes)) }
}

fn check_files(document: &Document, settings: &Settings) {
    if let Some(Tls::Files(tls)) = &settings.http.tls {
        for (setting, path) in
            [("http.tls.certificate", &tls.certificate), ("http.tls.key", &tls.key)]
        {
            if !path.is_file() {
                let problem = format!("there is no file '{}'", path.display());
                document.mistake(
                    setting,
                    problem,
                    format!("put the PEM file there or correct {setting}"),
                );
            }
        }
    }
    if let Some(ca) = &settings.upstreams.ca {
        let problem = match fs::read(ca) {
            Ok(bytes) if bytes.windows(CERTIFICATE.len()).any(|window| window == CERTIFICATE) => {
                None
            }
            Ok(_) => Some(format!("'{}' holds no certificate", ca.display())),
            Err(error) => Some(format!("'{}' cannot be read: {error}", ca.display())),
        };
        if let Some(problem) = problem {
            let remedy = "put the authorities' certificates there (PEM) or correct upstreams.ca";
            document.mistake("upstreams.ca", problem, remedy);
        }
    }
    if settings.data_dir.exists() && !settings.data_dir.is_dir() {
        let problem = format!("'{}' is not a directory", settings.data_dir.display());
        document.mistake("data_dir", problem, "move the file away or set data_dir to a directory");
    }
}
