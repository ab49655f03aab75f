//! What other scanners have found: how it is kept, and what of it decides about pulls.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use rules::ledger::scanners::{Elsewhere, LONGEST_WORD, MOST_KEPT};
use rules::ledger::scanning::Report;
use rules::words::moment::Timestamp;
use rules::words::names::ScannerId;
use scan::Finding;
use scan::adapter::metadata::ScannerName;
use serde_bytes::ByteBuf;

use super::{Findings, ScanError, weaknesses};

/// The maximum length of kept findings when they are unpacked, in bytes.
const MOST_UNPACKED: u64 = 64 << 20;

/// What another scanner has reported of an image.
pub(super) struct FromElsewhere {
    /// The scanner.
    pub(super) scanner: ScannerId,
    /// What it calls itself.
    pub(super) name: ScannerName,
    /// When its database was made, if it says so.
    pub(super) updated: Option<Timestamp>,
    /// Why it knows too little, if it says so.
    pub(super) insufficient: Option<String>,
    /// What it has found.
    pub(super) findings: Vec<Finding>,
    /// What there is to say of how that went.
    pub(super) log: String,
}

impl FromElsewhere {
    /// What is recorded of it for the scan with this number, which began then.
    pub(super) fn recorded(
        self,
        number: u64,
        begun: Timestamp,
    ) -> Result<(Report, Elsewhere), ScanError> {
        let (kept, left_out) = pack(&self.findings)?;
        let name = self.name.bounded(LONGEST_WORD);
        let count = self.findings.len();
        let mut log = format!("{}{count} findings of {name}\n", self.log);
        if let Some(what) = left_out {
            log += &format!("of the findings {what} are not kept: there are too many\n");
        }
        let report = Report {
            number,
            begun,
            at: begun,
            engine: name.to_string(),
            database: Report::no_database(),
            insufficient: self.insufficient,
            found: weaknesses(&self.findings),
            log,
        };
        let ScannerName { name, vendor, version } = name;
        let findings = ByteBuf::from(kept);
        let (scanner, updated) = (self.scanner, self.updated);
        Ok((report, Elsewhere { scanner, name, vendor, version, updated, findings }))
    }
}

/// Findings as they are kept, and what of them had to be left out.
fn pack(findings: &[Finding]) -> Result<(Vec<u8>, Option<&'static str>), ScanError> {
    let whole = packed(findings)?;
    if whole.len() <= MOST_KEPT {
        return Ok((whole, None));
    }
    let mut shorter = findings.to_vec();
    for finding in &mut shorter {
        finding.description.clear();
    }
    let without_texts = packed(&shorter)?;
    if without_texts.len() <= MOST_KEPT {
        return Ok((without_texts, Some("the descriptions")));
    }
    for finding in &mut shorter {
        finding.links.clear();
        finding.cwe_ids.clear();
        finding.cvss = None;
    }
    let bare = packed(&shorter)?;
    match bare.len() <= MOST_KEPT {
        true => Ok((bare, Some("descriptions, links and scores"))),
        false => Err(ScanError::Hopeless(format!(
            "the scanner has found more than can be kept ({} of {MOST_KEPT} bytes)",
            bare.len()
        ))),
    }
}

fn packed(findings: &[Finding]) -> Result<Vec<u8>, ScanError> {
    let pack = || {
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
        serde_json::to_writer(&mut packed, findings)?;
        packed.flush()?;
        packed.finish()
    };
    pack().map_err(|error: io::Error| ScanError::Hopeless(error.to_string()))
}

/// The findings that were kept.
pub(super) fn unpack(kept: &Elsewhere) -> Result<Vec<Finding>, ScanError> {
    let bytes = ZlibDecoder::new(kept.findings.as_slice()).take(MOST_UNPACKED);
    let read = serde_json::from_reader(io::BufReader::new(bytes));
    read.map_err(|_| {
        ScanError::Hopeless("what is kept of the report is damaged; scan again".into())
    })
}

/// A report of another scanner with all its texts.
pub(super) fn shown(report: Report, kept: Elsewhere) -> Result<Findings, ScanError> {
    let findings = unpack(&kept)?;
    let Elsewhere { name, vendor, version, updated, .. } = kept;
    let scanner = ScannerName { name, vendor, version };
    Ok(Findings { report, scanner, findings, database: None, updated, _permit: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::words::digest::Digest;
    use scan::adapter::report;
    use serde_json::json;

    fn found(count: usize, text: impl Fn(usize) -> String) -> Vec<Finding> {
        let all: Vec<_> = (0..count)
            .map(|n| {
                json!({
                    "id": format!("CVE-2024-{n:04}"),
                    "package": format!("p{n}"),
                    "version": "1",
                    "severity": "High",
                    "description": text(n),
                })
            })
            .collect();
        let body = json!({"vulnerabilities": all}).to_string();
        report::read(body.as_bytes(), &Digest::sha256(b"x")).unwrap().findings
    }

    /// Text that does not become shorter by compression.
    fn noise(n: usize) -> String {
        (0..20).map(|part| Digest::sha256(format!("{n} {part}").as_bytes()).to_string()).collect()
    }

    fn of(findings: Vec<Finding>) -> FromElsewhere {
        FromElsewhere {
            scanner: ScannerId(7),
            name: ScannerName { name: "Clair".into(), vendor: "Quay".into(), version: "4".into() },
            updated: None,
            insufficient: None,
            findings,
            log: String::new(),
        }
    }

    #[test]
    fn what_was_found_comes_back_and_decides() {
        let findings = found(3, |n| format!("text {n}"));
        let (report, kept) = of(findings.clone()).recorded(5, Timestamp(9)).unwrap();
        assert_eq!(unpack(&kept).unwrap(), findings);
        assert_eq!((report.found.len(), report.number, report.engine.as_str()), (3, 5, "Clair 4"));
        assert!(report.is_from_elsewhere() && kept.check().is_ok());
        let damaged = Elsewhere { findings: ByteBuf::from(vec![1, 2, 3]), ..kept };
        assert!(matches!(unpack(&damaged), Err(ScanError::Hopeless(_))));
    }

    #[test]
    fn of_too_much_the_texts_are_left_out_first_and_what_decides_stays() {
        let findings = found(2_000, noise);
        let (report, kept) = of(findings).recorded(5, Timestamp(9)).unwrap();
        assert!(kept.check().is_ok() && report.log.contains("the descriptions are not kept"));
        assert_eq!(report.found.len(), 2_000);
        let shown = unpack(&kept).unwrap();
        assert_eq!((shown.len(), shown[7].description.as_str()), (2_000, ""));
    }
}
