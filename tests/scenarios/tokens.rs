//! The keys that sign tokens change, and no pull fails: those of a mesh that had one shared secret
//! before, and those that are replaced after 30 days.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use http::Method;
use redb::{ReadableDatabase, TableDefinition};
use rustix::process::Signal;
use serde_json::Value;
use tests::formed::Formed;
use tests::http::Client;
use tests::image::{Image, MANIFEST};
use tests::member::Member;
use tests::people::with_token;
use tests::wait;

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
/// Tokens last for long, so that those of an old key meet a new one, and nothing else does.
const MORE: &str = "people: {token_lifetime: 1h, refresh_lifetime: 1h}\n";
/// The level before there were keys.
const BEFORE: u32 = 4;
/// After so many days the nodes' certificates are renewed, ten days before they end.
const CERTIFICATES: u64 = 20;
const SCOPE: &str = "repository:shut/app:pull";

/// Reads the manifest with what the client shows.
fn reads(client: &Client) -> u16 {
    let ask = client.ask(Method::GET, "/v2/shut/app/manifests/1").header("accept", MANIFEST);
    ask.send().unwrap_or_else(|none| panic!("{none}")).status
}

/// The head of the token that a client shows.
fn head(client: &Client) -> Value {
    let shown = client.credentials().expect("a token");
    let part = shown.trim_start_matches("Bearer ").split('.').next().expect("a part");
    let json = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64");
    serde_json::from_slice(&json).expect("JSON")
}

/// The number of the key that has signed the token.
fn key(client: &Client) -> u64 {
    let head = head(client);
    assert_eq!(head["alg"], "EdDSA", "{head}");
    head["kid"].as_str().and_then(|number| number.parse().ok()).expect("a key's number")
}

/// A mesh with a private image, and everything that is shown to it.
struct Town {
    mesh: Formed,
    nodes: usize,
}

impl Town {
    fn of(mut mesh: Formed, more: &str) -> Self {
        let edge = mesh.add_edge("edge", "us-east-1", more);
        mesh.members()[edge].wait_ready();
        tests::repository::create_project(&mesh.client(0), "shut", false, 1);
        mesh.repository(0, "shut/app")
            .push(&Image::tiny(), "1")
            .unwrap_or_else(|no| panic!("{no}"));
        Town { mesh, nodes: edge + 1 }
    }

    /// A client of one node with a token of another.
    fn token(&self, from: usize, at: usize) -> Client {
        let shown = with_token(&self.mesh.client(from), &[SCOPE]);
        shown.asking(&self.mesh.members()[at].anyone())
    }

    /// Pulls with a new token for each until `meanwhile` is over, in which the clocks leap so often. No
    /// pull may fail: for a token that a leap has ended a client asks again.
    fn while_pulled(&self, leaps: usize, meanwhile: impl FnOnce(&AtomicUsize)) {
        let (over, pulls) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|beside| {
            let pulling = beside.spawn(|| {
                let mut ended = 0;
                while !over.load(Ordering::SeqCst) {
                    let round = pulls.fetch_add(1, Ordering::SeqCst);
                    let (from, at) = (round % self.nodes, (round / self.nodes) % self.nodes);
                    // an edge's own tokens are for itself
                    let from = if from == self.nodes - 1 { at } else { from };
                    let mut status = reads(&self.token(from, at));
                    if status == 401 && ended < leaps {
                        ended += 1;
                        status = reads(&self.token(from, at));
                    }
                    assert_eq!(status, 200, "round {round}: a token of {from} at {at}");
                }
            });
            let end = Over(&over);
            meanwhile(&pulls);
            drop(end);
            pulling.join().expect("no pull fails");
        });
    }
}

/// Lets those who pull end also when something has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn some_more(pulls: &AtomicUsize) {
    let before = pulls.load(Ordering::SeqCst);
    wait::until("pulls go on", || (pulls.load(Ordering::SeqCst) > before + 16).then_some(()));
}

#[test]
fn a_mesh_that_had_one_secret_for_tokens_gets_keys_and_no_pull_fails() {
    let town = Town::of(Formed::at_level(&THREE, MORE, BEFORE), MORE);
    let old: Vec<Client> = (0..town.nodes).map(|at| town.token(at % THREE.len(), at)).collect();
    for token in &old {
        assert_eq!((head(token)["alg"].as_str(), reads(token)), (Some("HS256"), 200));
    }
    town.while_pulled(0, |pulls| {
        some_more(pulls);
        let raised = town.mesh.client(1).ask(Method::POST, "/api/atoll/v1/level").send();
        let raised = raised.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(raised.status, 200, "{raised}");
        wait::until("tokens are signed with a key", || {
            let new = with_token(&town.mesh.client(2), &[SCOPE]);
            (head(&new)["alg"] == "EdDSA").then_some(())
        });
        some_more(pulls);
        // those of before count until they end, at every node
        for token in &old {
            assert_eq!(reads(token), 200, "at {}", token.authority());
        }
    });
    // an hour later they have ended
    let clock = town.mesh.folder().join("clock");
    restart(&town, &clock, "+61m");
    for token in &old {
        assert_eq!(reads(token), 401, "at {}", token.authority());
    }
    for at in 0..town.nodes {
        assert_eq!(reads(&town.token(at % THREE.len(), at)), 200);
    }
}

/// Starts all nodes again, with a clock of their own.
fn restart(town: &Town, clock: &Path, ahead: &str) {
    std::fs::write(clock, ahead).expect("a clock");
    for member in town.mesh.members() {
        member.stop(Signal::TERM);
    }
    for member in town.mesh.members() {
        member.serve_by_the_clock_of(clock);
    }
    for member in town.mesh.members() {
        member.wait_ready();
    }
    // an edge is ready before it hears a replica, and until then sends clients to itself for a token
    wait::until("the edge hears the mesh", || {
        (reads(&town.token(0, town.nodes - 1)) == 200).then_some(())
    });
}

#[test]
fn keys_are_replaced_after_thirty_days_and_no_pull_fails() {
    let town = Town::of(Formed::of(&THREE, MORE), MORE);
    let clock = town.mesh.folder().join("clock");
    restart(&town, &clock, "+0");
    let leap = |ahead: &str| {
        // at once, so that no node reads half of it
        let new = clock.with_extension("new");
        std::fs::write(&new, ahead).expect("a clock");
        std::fs::rename(&new, &clock).expect("a clock");
    };
    let first = key(&town.token(0, 0));
    let mut renewed = 0;
    town.while_pulled(10, |pulls| {
        some_more(pulls);
        for (round, steps) in [(1, [8, 16, 24, 31]), (2, [39, 47, 55, 62])] {
            let (days, number) = (steps[3], first + round);
            for day in steps {
                leap(&format!("+{day}d"));
                // no clock leaps over the time in which certificates are renewed
                if day > renewed + CERTIFICATES {
                    let so_often = usize::try_from(round).expect("a small number");
                    wait::until("certificates are renewed", || {
                        let all = town.mesh.members().iter();
                        all.map(renewals).all(|times| times >= so_often).then_some(())
                    });
                    renewed = day;
                }
                some_more(pulls);
            }
            wait::until("a new key is made", || made(&town, number).then_some(()));
            some_more(pulls);
            // it is known for a while before it signs
            let before = town.token(0, 0);
            assert_eq!(key(&before), number - 1);
            leap(&format!("+{}m", days * 24 * 60 + 11));
            let after: Vec<Client> =
                (0..town.nodes).map(|at| town.token(at % THREE.len(), at)).collect();
            for token in &after {
                assert_eq!((key(token), reads(token)), (number, 200), "at {}", token.authority());
            }
            // the token of the key before counts until it ends, at every node
            for at in 0..town.nodes {
                let there = before.clone().asking(&town.mesh.members()[at].anyone());
                assert_eq!(reads(&there), 200, "at {at}");
            }
            some_more(pulls);
        }
    });
    // nothing needs the first one any more
    assert_eq!(numbers(&town.mesh.members()[0]), [first + 1, first + 2]);
}

/// The numbers of the keys in a node's ledger, which it has to stop for.
fn numbers(member: &Member) -> Vec<u64> {
    const STATE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("state-1");
    member.stop(Signal::TERM);
    let file = member.data().join("ledger/ledger.redb");
    let database = redb::Database::open(file).expect("a ledger");
    let read = database.begin_read().expect("a transaction");
    let table = read.open_table(STATE).expect("records");
    let prefix = rules::ledger::records::key::token_keys();
    let is_one = |key: &[u8]| {
        let number = key.strip_prefix(prefix.as_slice())?.try_into().ok()?;
        Some(u64::from_be_bytes(number))
    };
    let all = table.range(prefix.as_slice()..).expect("records").map(|pair| pair.expect("one"));
    all.map_while(|(key, _)| is_one(key.value())).collect()
}

/// How often a node has renewed its certificate.
fn renewals(member: &Member) -> usize {
    member.words().matches("this node's certificate was renewed").count()
}

/// Whether some node has said that it has made the key with this number.
fn made(town: &Town, number: u64) -> bool {
    let says = |line: &str| {
        line.contains("a new key signs tokens") && line.contains(&format!("number={number}"))
    };
    town.mesh.members().iter().any(|member| member.words().lines().any(says))
}
