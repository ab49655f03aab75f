//! TLS handshakes: how many a second, and what they cost the node, with and without tickets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, HandshakeKind, StreamOwned};
use serde_json::{Value, json};

use super::node::Node;
use super::rate::{Loop, Rate};
use crate::figures::{Quantiles, Spread, plain};
use crate::report::{Report, Table};

const CONNECTIONS: usize = 4;
const REQUESTS: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(60);

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    Plain,
    Whole,
    Resumed,
}

impl Beginning {
    const ALL: [Beginning; 3] = [Beginning::Plain, Beginning::Whole, Beginning::Resumed];

    fn title(self) -> &'static str {
        match self {
            Beginning::Plain => "plain HTTP",
            Beginning::Whole => "TLS 1.3, a whole handshake (ECDSA P-256)",
            Beginning::Resumed => "TLS 1.3, resumed with a ticket",
        }
    }
}

/// Opens connections one after the other at both nodes. Each carries one small request.
pub(crate) fn measure(
    report: &mut Report,
    plain: &Node,
    secure: &Node,
    rounds: u16,
) -> Result<Value> {
    let mut found = Beginning::ALL.map(|beginning| (beginning, Vec::new()));
    for round in 0..rounds {
        for (beginning, rates) in &mut found {
            let node = if *beginning == Beginning::Plain { plain } else { secure };
            rates.push(one(*beginning, node)?);
        }
        eprintln!("loadtest: handshakes round {} of {rounds}", round + 1);
    }
    tell(report, &found, rounds);
    let told =
        found.iter().map(|(beginning, rates)| json!({ "how": beginning.title(), "rounds": rates }));
    Ok(told.collect())
}

fn one(beginning: Beginning, node: &Node) -> Result<Rate> {
    let host = &node.anonymous.host;
    let config = node.tls.as_deref().map(|config| {
        let mut config = config.clone();
        config.resumption = match beginning {
            Beginning::Resumed => Resumption::in_memory_sessions(64),
            _ => Resumption::disabled(),
        };
        Arc::new(config)
    });
    if beginning == Beginning::Resumed {
        ask(host, config.as_ref())?; // the first ticket
    }
    let round =
        Loop { nodes: &[node.pid], before: &[], connections: CONNECTIONS, requests: REQUESTS };
    round.run(
        // tickets are used once: each thread has its own
        || {
            let own = config.as_ref().map(|config| {
                let mut own = (**config).clone();
                if beginning == Beginning::Resumed {
                    own.resumption = Resumption::in_memory_sessions(64);
                }
                Arc::new(own)
            });
            ask(host, own.as_ref())?;
            Ok(own)
        },
        |config, _| {
            let kind = ask(host, config.as_ref())?;
            let expected = match beginning {
                Beginning::Plain => None,
                Beginning::Whole => Some(HandshakeKind::Full),
                Beginning::Resumed => Some(HandshakeKind::Resumed),
            };
            ensure!(kind == expected, "a handshake was {kind:?}, not {expected:?}");
            Ok(())
        },
    )
}

/// Opens a connection, asks for something small, and reads until the node closes.
fn ask(host: &str, tls: Option<&Arc<rustls::ClientConfig>>) -> Result<Option<HandshakeKind>> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut said = Vec::new();
    let kind = match tls {
        None => {
            stream.write_all(request.as_bytes())?;
            stream.read_to_end(&mut said)?;
            None
        }
        Some(config) => {
            let address: std::net::SocketAddr = host.parse()?;
            let session = ClientConnection::new(config.clone(), ServerName::from(address.ip()))?;
            let mut stream = StreamOwned::new(session, stream);
            stream.write_all(request.as_bytes())?;
            stream.read_to_end(&mut said)?;
            Some(stream.conn.handshake_kind().context("a handshake that has ended")?)
        }
    };
    ensure!(said.starts_with(b"HTTP/1.1 200 "), "GET /healthz: {}", String::from_utf8_lossy(&said));
    Ok(kind)
}

fn tell(report: &mut Report, found: &[(Beginning, Vec<Rate>)], rounds: u16) {
    report.heading("Handshakes");
    report.say(&format!(
        "{REQUESTS} connections one after the other from each round's {CONNECTIONS} threads, each with one \
         request for `/healthz`; {rounds} rounds in turn; median (least - greatest). The difference to plain HTTP \
         is the handshake's."
    ));
    let of =
        |rates: &[Rate], what: fn(&Rate) -> f64| Spread::of(rates.iter().map(|r| Some(what(r))));
    let plain_cpu = of(&found[0].1, |rate| rate.cpu_us).map_or(0.0, |spread| spread.median);
    let columns = [
        "a connection",
        "a second",
        "p50 / p99 ms",
        "CPU of the node, us",
        "beyond plain HTTP, us",
    ];
    let mut table = Table::new(&columns);
    for (beginning, rates) in found {
        let latency = |which: fn(Quantiles) -> f64| {
            Spread::of(rates.iter().map(|rate| rate.latency_ms.map(which)))
                .map_or(0.0, |s| s.median)
        };
        let show =
            |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |s| s.to_string());
        let cpu = of(rates, |rate| rate.cpu_us);
        table.row(vec![
            beginning.title().to_owned(),
            show(of(rates, |rate| rate.per_second)),
            format!("{} / {}", plain(latency(|told| told.p50)), plain(latency(|told| told.p99))),
            show(cpu),
            plain(cpu.map_or(0.0, |spread| spread.median - plain_cpu)),
        ]);
    }
    report.table(&table);
}
