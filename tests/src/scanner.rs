//! Scanners that speak Harbor's API for pluggable scanners: `atoll scanner-adapter`, and one that lies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http::Client;
use crate::ports::reserve;
use crate::process::Running;
use crate::{tools, wait};

/// The media type of a report.
pub const REPORT: &str = "application/vnd.security.vulnerability.report; version=1.1";

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// `atoll scanner-adapter` as a process of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Adapter {
    address: SocketAddr,
    folder: PathBuf,
    more: Vec<String>,
    process: Option<Running>,
}

impl Adapter {
    /// Starts it in a folder of its own, with this database (trivy's archive) and more arguments, and
    /// waits until it is ready.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn start(folder: &Path, database: &[u8], more: &[&str]) -> Self {
        let folder = folder.join("scanner-adapter");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("db.tar.gz"), database).expect("a file");
        let address = reserve(Ipv4Addr::LOCALHOST.into());
        let more = more.iter().map(|one| (*one).to_owned()).collect();
        let mut adapter = Self { address, folder, more, process: None };
        adapter.again();
        adapter
    }

    /// Starts it again after [`Adapter::stop`].
    ///
    /// # Panics
    /// When it is not ready.
    pub fn again(&mut self) {
        let mut command = Command::new(tools::atoll());
        command.args(["scanner-adapter", "--listen", &self.address.to_string()]);
        command.arg("--data-dir").arg(self.folder.join("data"));
        command.arg("--database").arg(self.folder.join("db.tar.gz")).args(&self.more);
        self.process = Some(Running::start(&mut command, &self.folder.join("log")));
        wait::until_ok("the scanner adapter is ready", || {
            let answer = Client::of(&self.url()).get("/probe/ready");
            let answer = answer.map_err(|none| none.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        });
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::KILL, Duration::from_secs(20));
        }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// How a lying scanner behaves.
#[derive(Clone, Debug)]
pub enum Manner {
    /// It reports these findings about the image that it was asked about.
    Reports(Value),
    /// It reports about another image.
    OtherImage,
    /// Its report is never there.
    NeverReady,
    /// Its report has so many bytes.
    Long(usize),
    /// It sends whoever asks for the report elsewhere.
    Redirects(String),
    /// It fails each scan with this message.
    Fails(String),
    /// It gives a scan a number that leads elsewhere.
    Number(String),
}

/// A scanner that does as a scenario says. It answers until the test ends.
#[derive(Debug)]
pub struct Liar {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Liar {
    /// Starts it.
    ///
    /// # Panics
    /// When there is no port for it.
    #[must_use]
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (manner, asked) = (Arc::new(Mutex::new(manner)), Arc::new(Mutex::new(Vec::new())));
        let (told, heard) = (manner.clone(), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (told, heard) = (told.clone(), heard.clone());
                std::thread::spawn(move || answer(stream, &told, &heard));
            }
        });
        Self { address, manner, asked }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it behaves so.
    pub fn behave(&self, manner: Manner) {
        *lock(&self.manner) = manner;
    }

    /// The scans that it was asked for.
    #[must_use]
    pub fn asked(&self) -> Vec<Value> {
        lock(&self.asked).clone()
    }

    /// The name and the password with which it was told to pull, when it was asked last.
    ///
    /// # Panics
    /// When it was not asked, or was told something else.
    #[must_use]
    pub fn told(&self) -> (String, String) {
        let last = self.asked().pop().expect("it was asked");
        let written = last["registry"]["authorization"].as_str().unwrap_or_default().to_owned();
        let pair = written.strip_prefix("Basic ").expect("a name and a password");
        let pair = base64::prelude::BASE64_STANDARD.decode(pair).expect("base64");
        let pair = String::from_utf8(pair).expect("text");
        let (name, password) = pair.split_once(':').expect("a name and a password");
        (name.to_owned(), password.to_owned())
    }
}

fn answer(mut stream: TcpStream, manner: &Mutex<Manner>, asked: &Mutex<Vec<Value>>) {
    let Some((path, body)) = read(&stream) else { return };
    let manner = lock(manner).clone();
    let (status, headers, body) = if path == "/api/v1/metadata" {
        let image = "application/vnd.oci.image.manifest.v1+json";
        let metadata = json!({
            "scanner": {"name": "Liar", "vendor": "Nobody", "version": "7"},
            "capabilities": [{"consumes_mime_types": [image], "produces_mime_types": [REPORT]}],
            "properties": {},
        });
        ("200 OK", String::new(), metadata.to_string().into_bytes())
    } else if path == "/api/v1/scan" {
        lock(asked).push(serde_json::from_slice(&body).unwrap_or_default());
        let id = match manner {
            Manner::Number(id) => id,
            _ => "1".to_owned(),
        };
        ("202 Accepted", String::new(), json!({"id": id}).to_string().into_bytes())
    } else {
        let last = lock(asked).last().cloned().unwrap_or_default();
        let report = |digest: &Value, found: &Value| {
            let artifact = json!({"digest": digest});
            let report = json!({"artifact": artifact, "vulnerabilities": found});
            ("200 OK", String::new(), report.to_string().into_bytes())
        };
        match manner {
            Manner::Reports(found) => report(&last["artifact"]["digest"], &found),
            Manner::OtherImage => report(&json!(crate::image::digest(b"another one")), &json!([])),
            Manner::Long(bytes) => {
                let mut long = b"{\"vulnerabilities\": [".to_vec();
                long.resize(bytes, b' ');
                ("200 OK", String::new(), long)
            }
            Manner::Redirects(to) => ("307 Temporary", format!("Location: {to}\r\n"), Vec::new()),
            Manner::Fails(why) => {
                let said = json!({"error": {"message": why}});
                ("500 Failed", String::new(), said.to_string().into_bytes())
            }
            Manner::NeverReady | Manner::Number(_) => {
                ("302 Found", "Refresh-After: 1\r\n".to_owned(), Vec::new())
            }
        }
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

/// The path and the body of a request.
fn read(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}
