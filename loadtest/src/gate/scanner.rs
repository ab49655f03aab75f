//! A scanner that finds the same in each image, and answers until the run ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::Result;
use serde_json::{Value, json};

use crate::content::MANIFEST;

/// The media type of a report.
const REPORT: &str = "application/vnd.security.vulnerability.report; version=1.1";

/// Starts it; where it is. It finds so many weaknesses of low severity.
pub(super) fn start(weaknesses: usize) -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let url = format!("http://{}", listener.local_addr()?);
    let found: Vec<Value> = (0..weaknesses)
        .map(|number| {
            json!({
                "id": format!("CVE-2026-{:04}", 1000 + number), "package": "library",
                "version": "1.0", "severity": "Low",
            })
        })
        .collect();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // whoever hangs up is told nothing
            let _ = answer(stream, &found);
        }
    });
    Ok(url)
}

fn answer(mut stream: TcpStream, found: &[Value]) -> Result<()> {
    let (path, body) = read(&stream)?;
    let (status, body) = match path.as_str() {
        "/api/v1/metadata" => (
            "200 OK",
            json!({
                "scanner": {"name": "loadtest", "vendor": "loadtest", "version": "1"},
                "capabilities": [
                    {"consumes_mime_types": [MANIFEST], "produces_mime_types": [REPORT]},
                ],
                "properties": {},
            }),
        ),
        "/api/v1/scan" => {
            let asked: Value = serde_json::from_slice(&body)?;
            let of = asked["artifact"]["digest"].as_str().unwrap_or_default();
            // the image's digest is the number of its scan
            ("202 Accepted", json!({"id": of.replace(':', "-")}))
        }
        path => {
            let number = path.trim_start_matches("/api/v1/scan/").split('/').next();
            let digest = number.unwrap_or_default().replace('-', ":");
            ("200 OK", json!({"artifact": {"digest": digest}, "vulnerabilities": found}))
        }
    };
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    Ok(())
}

/// The path and the body of a request.
fn read(stream: &TcpStream) -> Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((path, body))
}
