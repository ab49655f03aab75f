//! The rig under the scenarios: real `atoll` processes, real clients, networks that can be cut.
//!
//! The scenarios in `tests/scenarios` state what the mesh promises; nothing here knows a promise.
//! What they share is how to start things, how to talk to them and how to take them away again,
//! whatever happens:
//!
//! - [`process`] starts programs and ends every one of them by its pid;
//! - [`wait`] polls a condition, because nothing here sleeps and hopes;
//! - [`http`] is a plain HTTP/1.1 client, [`wire`] the same without manners, for hostile input;
//! - [`image`] makes images, [`repository`] pushes and pulls them and hashes every byte;
//! - [`mesh`] is `atoll up`; [`formed`] is made of [`member`]s with settings of their own,
//!   [`islands`] too, over networks that can be cut and narrowed;
//! - [`coast`] is such a network with an edge in it, reached by clients outside it that a cut does
//!   not touch;
//! - [`upstream`] is another registry, behind a door that counts and can be told to fail;
//!   [`proxies`] makes projects that stand for it;
//! - [`intruder`] is a hostile peer that speaks the mesh protocol;
//! - [`certificates`] are those of a CA made for the scenario;
//! - [`vulnerabilities`] makes the databases that trivy-db publishes, [`bolt`] their files, and
//!   [`scans`] images in which something is found; [`scanner`] is a scanner beside the mesh;
//! - [`disk`] is a disk whose `fsync` is slow, hangs or fails;
//! - [`softhsm`] are hardware security modules of nodes, which can be taken away and hang;
//!   [`local_kms`] is AWS KMS;
//! - [`small_disk`] is a small one;
//! - [`complaints`] collects what is wrong, [`footprint`] what is left on the disks, [`metrics`]
//!   what a node counts;
//! - [`daemons`] are a dockerd, a containerd and a podman of our own, [`cri`] asks a containerd as
//!   a kubelet does, [`tools`] the other clients;
//! - [`ports`] are for programs that cannot say which one they got;
//! - [`modules`] reads which modules of a crate use which;
//! - [`pulling`] is a client that goes on at the next host, as patient ones do, [`pullers`] are the
//!   real ones with such hosts.

pub mod accounting;
pub mod balancer;
pub mod bolt;
pub mod certificates;
pub mod coast;
pub mod complaints;
pub mod cri;
pub mod daemons;
pub mod disk;
pub mod footprint;
pub mod formed;
pub mod http;
pub mod hub;
pub mod image;
pub mod intruder;
pub mod islands;
pub mod local_kms;
pub mod member;
pub mod mesh;
pub mod metrics;
pub mod modules;
pub mod oidc;
pub mod people;
pub mod ports;
pub mod process;
pub mod proxies;
pub mod pullers;
pub mod pulling;
pub mod repository;
pub mod scanner;
pub mod scans;
pub mod shop;
pub mod signers;
pub mod sigstore;
pub mod slapd;
pub mod small_disk;
pub mod softhsm;
pub mod tools;
pub mod upstream;
pub mod vulnerabilities;
pub mod wait;
pub mod wire;

use std::sync::{Mutex, MutexGuard};

static MACHINE: Mutex<()> = Mutex::new(());

/// Taken by whatever starts a mesh, so that one scenario at a time has the machine.
///
/// The promises do not depend on speed, but three nodes and a client on two cores are load enough.
pub(crate) fn whole_machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// How many rounds a scenario plays: `full`, or fewer when `ATOLL_ROUNDS` says so (a quick look,
/// not a proof).
#[must_use]
pub fn rounds(full: usize) -> usize {
    std::env::var("ATOLL_ROUNDS")
        .ok()
        .and_then(|most| most.parse().ok())
        .map_or(full, |most: usize| full.min(most.max(1)))
}
