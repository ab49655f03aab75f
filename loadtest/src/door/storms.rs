//! What each attack does, step by step.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use clap::ValueEnum;
use serde::Serialize;

use super::attacker::{Sent, Storm, Way};
use super::frames;

/// Connections of an attack that holds some: below the limit of one address (1,000), so that the
/// node serves all of them.
const SOME: usize = 900;
/// Connections that only wait.
const IDLE: usize = 10_000;
/// Addresses for those: each may have a thousand.
const IDLE_ADDRESSES: u8 = 16;
/// Connections with requests whose answers nobody takes.
const READERS: usize = 500;
/// HTTP/2 connections, and the requests of each.
const FEW: usize = 8;
const STREAMS: u32 = 100;

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Attack {
    /// heads that are sent byte by byte
    Slowloris,
    /// heads with 10,000 headers, heads of 1 MiB, and both over HTTP/2
    HeaderBombs,
    /// connections that are opened, send nothing and are closed
    ConnectionFlood,
    /// HTTP/2 requests that are reset at once
    RapidReset,
    /// 10,000 connections that send nothing
    Idle,
    /// blobs of which a few bytes are read now and then
    SlowReaders,
    /// HTTP/2 requests for blobs of which nothing is taken
    SlowStreams,
    /// TLS handshakes that are begun and not finished
    Hellos,
}

/// What an attack aims at.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// The node.
    pub(crate) to: SocketAddr,
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
    /// A manifest that anybody may read.
    pub(crate) manifest: String,
    /// A long blob that anybody may read.
    pub(crate) blob: String,
}

impl Attack {
    /// All of them, in the order of the report.
    pub(crate) fn all() -> &'static [Attack] {
        Attack::value_variants()
    }

    /// The name on the command line and in `door.json`.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it is, in words.
    pub(crate) fn title(self) -> String {
        let help = self.to_possible_value().and_then(|value| Some(value.get_help()?.to_string()));
        help.unwrap_or_default()
    }

    /// What is counted as one thing of it.
    pub(crate) fn thing(self) -> &'static str {
        match self {
            Attack::Slowloris => "bytes of heads",
            Attack::HeaderBombs => "heads",
            Attack::ConnectionFlood => "connections",
            Attack::RapidReset => "resets",
            Attack::Idle => "looks at a connection",
            Attack::SlowReaders => "small reads",
            Attack::SlowStreams => "requests",
            Attack::Hellos => "ClientHellos",
        }
    }

    /// Whether it says something at a node with this transport.
    pub(crate) fn fits(self, tls: bool) -> bool {
        match self {
            Attack::Hellos => tls,
            Attack::Slowloris | Attack::ConnectionFlood | Attack::Idle => true,
            // behind the handshake they are the same
            _ => !tls,
        }
    }

    /// How many addresses it comes from.
    pub(crate) fn addresses(self) -> u8 {
        if self == Attack::Idle { IDLE_ADDRESSES } else { 1 }
    }

    /// Whether it fills the limit of an address: then it says something also where it shares that of
    /// the pullers.
    pub(crate) fn fills_an_address(self) -> bool {
        matches!(self, Attack::Slowloris | Attack::ConnectionFlood | Attack::Idle)
    }

    /// Begins it, from its own addresses, or from that of the pullers.
    pub(crate) fn begin(self, mark: &Mark, shared: bool) -> Box<dyn Storm> {
        let way = Way::new(mark.to, if shared { 0 } else { self.addresses() });
        let host = mark.to.to_string();
        // one more than an address may have, where it has only one
        let some = if shared { SOME + 200 } else { SOME };
        match self {
            Attack::Slowloris => {
                let first = match mark.tls {
                    false => format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nX-Slow: ").into_bytes(),
                    // a record of 16 KiB that begins with a ClientHello
                    true => [22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3].to_vec(),
                };
                Box::new(Dripping { way, first, slots: slots(some), at: 0 })
            }
            Attack::HeaderBombs => {
                let long =
                    format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nX: {}", "x".repeat(1 << 20));
                let headers: String = (0..10_000).map(|n| format!("X-{n}: x\r\n")).collect();
                let many = format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
                let mut http2 = frames::begin(frames::WINDOW);
                frames::bomb(&mut http2, 1, &host, "/v2/", 10_000);
                let volleys = vec![long.into_bytes(), many.into_bytes(), http2];
                Box::new(Volleys { way, volleys, slots: (0..FEW).map(|_| None).collect(), at: 0 })
            }
            Attack::ConnectionFlood => {
                Box::new(Flood { way, say: Vec::new(), held: VecDeque::new(), most: some })
            }
            Attack::Hellos => {
                Box::new(Flood { way, say: hello(), held: VecDeque::new(), most: 64 })
            }
            Attack::RapidReset => Box::new(Resets {
                way,
                host,
                path: mark.manifest.clone(),
                slots: (0..FEW).map(|_| None).collect(),
                at: 0,
            }),
            Attack::Idle => {
                Box::new(Dripping { way, first: Vec::new(), slots: slots(IDLE), at: 0 })
            }
            Attack::SlowReaders => {
                let head = format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", mark.blob);
                let way = way.reading_little();
                let slots = (0..READERS).map(|_| None).collect();
                Box::new(Readers { way, first: head.into_bytes(), slots, at: 0, requests: 0 })
            }
            Attack::SlowStreams => {
                let mut first = frames::begin(0);
                for n in 0..STREAMS {
                    frames::get(&mut first, 2 * n + 1, &host, &mark.blob);
                }
                let slots = (0..FEW).map(|_| None).collect();
                Box::new(Readers { way, first, slots, at: 0, requests: u64::from(STREAMS) })
            }
        }
    }
}

fn slots(count: usize) -> Vec<Option<TcpStream>> {
    (0..count).map(|_| None).collect()
}

/// A ClientHello as rustls sends it: for a node each connection's is new, whatever it says.
fn hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the defaults")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
    let begun = rustls::ClientConnection::new(config.into(), name);
    let mut out = Vec::new();
    begun.expect("a client may begin").write_tls(&mut out).expect("memory takes it");
    out
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

/// Whether the other side has ended a connection. Throws away what it said.
fn has_ended(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 4096]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !waits(&error),
    }
}

/// Connections of which each sends its beginning, and then a byte at a time; or nothing at all if it
/// has no beginning.
struct Dripping {
    way: Way,
    first: Vec<u8>,
    slots: Vec<Option<TcpStream>>,
    at: usize,
}

impl Storm for Dripping {
    fn step(&mut self, sent: &mut Sent) -> bool {
        self.at = (self.at + 1) % self.slots.len();
        let slot = &mut self.slots[self.at];
        let Some(stream) = slot else {
            match self.way.open(sent) {
                Ok(mut stream) => {
                    // loopback has connected it by now, or it is found out when its turn comes
                    sent.bytes += stream.write(&self.first).unwrap_or(0) as u64;
                    *slot = Some(stream);
                }
                Err(_) => sent.ended += 1,
            }
            return true;
        };
        let lives = match self.first.is_empty() {
            true => !has_ended(stream),
            false => match stream.write(b"a") {
                Ok(_) => {
                    sent.bytes += 1;
                    true
                }
                Err(error) => waits(&error),
            },
        };
        sent.things += 1;
        if !lives {
            sent.ended += 1;
            *slot = None;
        }
        !self.first.is_empty() || !lives
    }

    fn open(&self) -> usize {
        self.slots.iter().flatten().count()
    }
}

/// Connections that each send one of some long messages, and end when it is answered or refused.
struct Volleys {
    way: Way,
    volleys: Vec<Vec<u8>>,
    slots: Vec<Option<(TcpStream, usize, usize)>>,
    at: usize,
}

impl Storm for Volleys {
    fn step(&mut self, sent: &mut Sent) -> bool {
        self.at = (self.at + 1) % self.slots.len();
        let number = sent.connections as usize % self.volleys.len();
        let slot = &mut self.slots[self.at];
        let Some((stream, volley, done)) = slot else {
            match self.way.open(sent) {
                Ok(stream) => *slot = Some((stream, number, 0)),
                Err(_) => sent.ended += 1,
            }
            return true;
        };
        let rest = &self.volleys[*volley][*done..];
        let over = match stream.write(rest) {
            Ok(wrote) => {
                *done += wrote;
                sent.bytes += wrote as u64;
                false
            }
            Err(error) => !waits(&error),
        };
        let answered = match stream.read(&mut [0; 4096]) {
            Ok(read) => *done > 0 && (read == 0 || *volley != 2),
            Err(error) => !waits(&error),
        };
        if over || answered {
            sent.things += 1;
            sent.ended += 1;
            *slot = None;
        }
        true
    }

    fn open(&self) -> usize {
        self.slots.iter().flatten().count()
    }
}

/// Connections one after the other; the oldest is closed when there are enough.
struct Flood {
    way: Way,
    say: Vec<u8>,
    held: VecDeque<TcpStream>,
    most: usize,
}

impl Storm for Flood {
    fn step(&mut self, sent: &mut Sent) -> bool {
        if self.held.len() >= self.most {
            self.held.pop_front();
        }
        match self.way.open(sent) {
            Ok(mut stream) => {
                sent.bytes += stream.write(&self.say).unwrap_or(0) as u64;
                sent.things += 1;
                self.held.push_back(stream);
            }
            Err(_) => sent.ended += 1,
        }
        true
    }

    fn open(&self) -> usize {
        self.held.len()
    }
}

/// HTTP/2 connections on which each request is reset at once.
struct Resets {
    way: Way,
    host: String,
    path: String,
    slots: Vec<Option<Resetting>>,
    at: usize,
}

struct Resetting {
    stream: TcpStream,
    next: u32,
    out: Vec<u8>,
    done: usize,
}

impl Storm for Resets {
    fn step(&mut self, sent: &mut Sent) -> bool {
        const AT_ONCE: u32 = 20;
        self.at = (self.at + 1) % self.slots.len();
        let slot = &mut self.slots[self.at];
        let Some(one) = slot else {
            match self.way.open(sent) {
                Ok(stream) => {
                    let out = frames::begin(frames::WINDOW);
                    *slot = Some(Resetting { stream, next: 1, out, done: 0 });
                }
                Err(_) => sent.ended += 1,
            }
            return true;
        };
        if one.done == one.out.len() {
            one.out.clear();
            one.done = 0;
            for _ in 0..AT_ONCE {
                frames::get(&mut one.out, one.next, &self.host, &self.path);
                frames::reset(&mut one.out, one.next);
                one.next += 2;
            }
            sent.things += u64::from(AT_ONCE);
        }
        let over = match one.stream.write(&one.out[one.done..]) {
            Ok(wrote) => {
                one.done += wrote;
                sent.bytes += wrote as u64;
                false
            }
            Err(error) => !waits(&error),
        };
        if over || has_ended(&mut one.stream) {
            sent.ended += 1;
            *slot = None;
        }
        true
    }

    fn open(&self) -> usize {
        self.slots.iter().flatten().count()
    }
}

/// Connections that ask for a lot, and take a few bytes of it now and then; or none, if the
/// requests of HTTP/2 have no window.
struct Readers {
    way: Way,
    first: Vec<u8>,
    slots: Vec<Option<(TcpStream, usize)>>,
    at: usize,
    /// Requests of each connection; 0: the small reads are counted, and not they.
    requests: u64,
}

impl Storm for Readers {
    fn step(&mut self, sent: &mut Sent) -> bool {
        const LITTLE: usize = 256;
        self.at = (self.at + 1) % self.slots.len();
        let slot = &mut self.slots[self.at];
        let Some((stream, done)) = slot else {
            match self.way.open(sent) {
                Ok(stream) => *slot = Some((stream, 0)),
                Err(_) => sent.ended += 1,
            }
            return true;
        };
        if *done < self.first.len() {
            let over = match stream.write(&self.first[*done..]) {
                Ok(wrote) => {
                    *done += wrote;
                    sent.bytes += wrote as u64;
                    if *done == self.first.len() {
                        sent.things += self.requests;
                    }
                    false
                }
                Err(error) => !waits(&error),
            };
            if over {
                sent.ended += 1;
                *slot = None;
            }
            return true;
        }
        let over = match stream.read(&mut [0; LITTLE]) {
            Ok(read) => {
                sent.things += u64::from(self.requests == 0);
                read == 0
            }
            Err(error) => !waits(&error),
        };
        if over {
            sent.ended += 1;
            *slot = None;
        }
        over
    }

    fn open(&self) -> usize {
        self.slots.iter().flatten().count()
    }
}
