//! Nodes on loopback, formed one after the other with `init`, `invite` and `join`, each with
//! settings of its own.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::member::{self, Member, Place};
use crate::repository::Repository;
use crate::wait;

/// Settings for scenarios that count who was asked and what was sent: a machine that is busy for a
/// while is no stall and no death.
pub const UNHURRIED: &str = "deadlines: {source_stall: 30s}\nroster: {suspect_to_down: 20s}\n";

/// A mesh formed by hand. Dropping it ends every process of it.
#[derive(Debug)]
pub struct Formed {
    members: Vec<Member>,
    password: String,
    folder: TempDir,
    _machine: MutexGuard<'static, ()>,
}

impl Formed {
    /// Nodes with these names and regions, all with `more` in their settings; the first three vote.
    ///
    /// # Panics
    /// When the mesh does not form.
    #[must_use]
    pub fn of(sites: &[(&str, &str)], more: &str) -> Self {
        Self::begin(sites, more, None, Member::init)
    }

    /// The same, of nodes of another build.
    ///
    /// # Panics
    /// When the mesh does not form.
    #[must_use]
    pub fn by(build: &Path, sites: &[(&str, &str)]) -> Self {
        Self::begin(sites, "", Some(build), Member::init)
    }

    /// The same, of nodes that begin at a feature level, as a mesh of an earlier build had it.
    ///
    /// # Panics
    /// When the mesh does not form.
    #[must_use]
    pub fn at_level(sites: &[(&str, &str)], more: &str, level: u32) -> Self {
        Self::begin(sites, more, None, |first| first.init_at(level))
    }

    fn begin(
        sites: &[(&str, &str)],
        more: &str,
        build: Option<&Path>,
        init: impl Fn(&Member) -> String,
    ) -> Self {
        let machine = crate::whole_machine();
        let folder = TempDir::with_prefix("atoll-formed-").expect("a temporary folder");
        let mut formed =
            Self { members: Vec::new(), password: String::new(), folder, _machine: machine };
        for (name, region) in sites {
            let member = formed.prepare(name, region, more);
            if let Some(build) = build {
                member.is_of(build);
            }
            if formed.members.is_empty() {
                formed.password = init(&member);
            } else {
                member.must_join(&formed.members[0].invite());
            }
            member.serve();
            member.wait_ready();
            formed.members.push(member);
        }
        wait::until("the ledger has its voters", || {
            let voters = formed.status(0).ok()?["ledger"]["voters"].as_array()?.len();
            (voters == sites.len().min(3)).then_some(())
        });
        formed
    }

    /// Writes the settings of one more node, on free ports. It is not a member yet.
    #[must_use]
    pub fn prepare(&self, name: &str, region: &str, more: &str) -> Member {
        Member::new(self.folder.path(), name, region, loopback(), "", more)
    }

    /// Lets an edge in and starts it; does not wait until it is ready. Its number among the nodes.
    ///
    /// # Panics
    /// When it is not let in.
    pub fn add_edge(&mut self, name: &str, region: &str, more: &str) -> usize {
        let edge = self.prepare(name, region, &format!("role: edge\n{more}"));
        edge.must_join(&self.members[0].invite_as("edge"));
        edge.serve();
        self.members.push(edge);
        self.members.len() - 1
    }

    /// Takes a node among the others.
    pub fn add(&mut self, member: Member) {
        self.members.push(member);
    }

    /// The nodes, in the order they came.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The administrator's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The folder of all of it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The administrator, at a node.
    #[must_use]
    pub fn client(&self, at: usize) -> Client {
        self.members[at].anyone().basic("admin", &self.password)
    }

    /// A repository at a node, as the administrator.
    #[must_use]
    pub fn repository(&self, at: usize, name: &str) -> Repository {
        Repository::new(&self.client(at), name)
    }

    /// Waits until all replicas have one fingerprint at one revision, and know it.
    ///
    /// # Panics
    /// When they do not for too long.
    pub fn agree(&self) {
        wait::until_ok("all replicas have the same records", || {
            let records = (0..self.members.len())
                .map(|at| self.status(at).map(|status| status["ledger"]["records"].clone()))
                .collect::<Result<Vec<_>, _>>()?;
            let same = records.iter().all(|of| {
                of["same"] == true
                    && of["differ_from"].as_array().is_some_and(Vec::is_empty)
                    && of["revision"] == records[0]["revision"]
                    && of["fingerprint"] == records[0]["fingerprint"]
            });
            if same { Ok(()) } else { Err(format!("{records:?}")) }
        });
    }

    /// What a node says about the mesh.
    ///
    /// # Errors
    /// When it does not say.
    pub fn status(&self, at: usize) -> Result<Value, String> {
        member::status(&self.client(at))
    }
}

/// An unused place on loopback: an address of its own, so that ports and connections of other nodes
/// do not interfere.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn loopback() -> Place {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..50 {
        // 127.64.0.0/10, from a place that depends on the process
        let number =
            std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let address =
            Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 0).to_bits() | (number & 0x003f_ffff));
        if address.octets()[3] == 0 || address.octets()[3] == 255 {
            continue;
        }
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let place = listener.local_addr().expect("a bound socket has an address").to_string();
        if UdpSocket::bind(&place).is_ok() {
            return Place { http: place.clone(), mesh: place, network: None };
        }
    }
    panic!("no port is free for both TCP and UDP")
}
