//! Which peers may come in through the mesh's port, and what they may do. This is decided before
//! anything that a peer sends is decoded.

use core::net::IpAddr;
use std::collections::HashMap;
use std::time::Duration;

use crate::ledger::level::Level;
use crate::ledger::records::Role;
use crate::words::digest::Digest;
use crate::words::moment::Moment;
use crate::words::names::NodeId;

/// What a peer's certificate says. Its signature was already checked against an authority of the
/// mesh, or against the key that the ledger has of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The node that it was issued to.
    pub node: NodeId,
    /// The role that the node was admitted with. `None` for certificates from before they named
    /// roles.
    pub role: Option<Role>,
    /// Whether it has expired.
    pub expired: bool,
    /// The version of the authority that signed it.
    pub issuer: u64,
    /// The sha256 of the public key that it is for.
    pub key: Digest,
}

/// What this node's records say of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its role in the records; `None` if it is not listed.
    pub role: Option<Role>,
    /// Whether it was removed from the mesh.
    pub removed: bool,
    /// Whether no node is listed at all, because this node has just joined and has applied nothing
    /// yet.
    pub nothing_known: bool,
    /// The mesh's feature level.
    pub level: Level,
    /// The key that the ledger has of it.
    pub pin: Option<Digest>,
    /// The version of the newest authority of the mesh.
    pub authority: u64,
    /// The oldest version of an authority that counts for nodes whose key is not recorded: the newest,
    /// or, from when somebody else has its key, the one that will follow.
    pub trusted_from: u64,
}

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything that replicas do.
    Replica,
    /// The few things that edges do.
    Edge,
    /// Only ask for a new certificate.
    RenewOnly,
    /// Nothing, for this reason.
    Nobody(&'static str),
}

/// Why a node that was removed may do nothing. It ends when it is told so by a replica.
pub const REMOVED: &str = "this node was removed from the mesh";

/// What a peer may do that shows `shown`, given what is `known` of it.
pub fn standing(shown: &Shown, known: &Known) -> Standing {
    if known.removed {
        return Standing::Nobody(REMOVED);
    }
    if known.pin.is_some_and(|key| key != shown.key) {
        return Standing::Nobody("its key is not the one that the mesh has recorded for this node");
    }
    if known.pin.is_none() && shown.issuer < known.trusted_from {
        return Standing::Nobody(
            "its certificate is of an authority that the mesh has replaced, and its key is not recorded; it has to join anew",
        );
    }
    if shown.expired || (shown.role.is_none() && known.level >= Level::ROLES) {
        return match known.role {
            Some(_) => Standing::RenewOnly,
            None => Standing::Nobody(
                "its certificate is no longer valid, and the mesh does not list it",
            ),
        };
    }
    let role = match (shown.role, known.role) {
        (Some(shown), Some(known)) if shown != known => {
            return Standing::Nobody("its certificate names another role than the mesh's records");
        }
        // not listed here yet, but the mesh's CA has signed the role
        (Some(role), _) | (None, Some(role)) => role,
        // A node without records must admit the peer that brings them. It has the peer's address
        // from the mesh that issued its token.
        (None, None) if known.nothing_known => Role::Replica,
        (None, None) => {
            return Standing::Nobody(
                "it is not listed here yet, and its certificate names no role",
            );
        }
    };
    match role {
        Role::Replica => Standing::Replica,
        Role::Edge => Standing::Edge,
    }
}

/// Whether a certificate counts at the handshake although no authority that this node knows has
/// signed it: this node lags behind a change of the authority, and hears of it only from replicas
/// that have a newer certificate already. They are known by their keys.
pub fn counts_unsigned(shown: &Shown, known: &Known) -> bool {
    shown.issuer > known.authority
        && known.pin == Some(shown.key)
        && known.role == Some(Role::Replica)
        && !known.removed
}

/// Limits for handshakes and for connections that are not yet authenticated.
#[derive(Clone, Copy, Debug)]
pub struct DoorkeeperTerms {
    /// The number of handshakes that one address may begin at once before it has to wait.
    pub burst: u32,
    /// How long until an address may begin one more.
    pub refill: Duration,
    /// The maximum number of strangers' connections that may be open at once, from all addresses.
    /// The same number applies to members. A connection is a stranger's until its certificate was
    /// checked.
    pub strangers: usize,
    /// The maximum number of strangers' connections from one address.
    pub strangers_of_one: usize,
    /// The maximum number of addresses that are remembered.
    pub addresses: usize,
}

impl Default for DoorkeeperTerms {
    fn default() -> Self {
        DoorkeeperTerms {
            burst: 64,
            refill: Duration::from_millis(250),
            strangers: 256,
            strangers_of_one: 64,
            addresses: 4096,
        }
    }
}

/// What to do with a handshake that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// Let it continue.
    Admit,
    /// Require a proof that the peer receives what is sent to its address (QUIC's Retry).
    Prove,
    /// Refuse it.
    Refuse,
}

/// Limits the connections of a node: one instance for all of them.
#[derive(Debug)]
pub struct Doorkeeper {
    terms: DoorkeeperTerms,
    strangers: usize,
    members: usize,
    callers: HashMap<IpAddr, Caller>,
}

#[derive(Debug)]
struct Caller {
    /// The number of handshakes that it may still begin.
    left: u32,
    /// When `left` was last refilled.
    since: Moment,
    /// The number of its connections that are still strangers'.
    strangers: usize,
}

/// What counts as one caller: an IPv4 address, or a 64-bit IPv6 network, because an owner of one
/// address there has all of them.
pub fn caller_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => {
                let mut octets = six.octets();
                octets[8..].fill(0);
                IpAddr::from(octets)
            }
        },
    }
}

impl Doorkeeper {
    /// No connections yet.
    pub fn new(terms: DoorkeeperTerms) -> Self {
        Doorkeeper { terms, strangers: 0, members: 0, callers: HashMap::new() }
    }

    /// A handshake begins. `member` means that the records name the address as a member's. Anyone
    /// can put that address on a packet, so it saves the proof only while few connections wait.
    /// `proven` means that the peer has shown that it receives at its address. After
    /// [`Knock::Admit`] the caller must report the end of it with [`Doorkeeper::handle_left`].
    ///
    /// Members and strangers are counted separately, so strangers cannot keep members out, however
    /// many they are.
    pub fn handle_knock(
        &mut self,
        now: Moment,
        address: IpAddr,
        member: bool,
        proven: bool,
    ) -> Knock {
        if member {
            if !proven && self.members >= self.terms.strangers / 4 {
                return Knock::Prove;
            }
            // All nodes behind one address reconnect at once after an outage, so members are
            // limited by the number of connections, not by a rate.
            if self.members >= self.terms.strangers {
                return Knock::Refuse;
            }
            self.members += 1;
            return Knock::Admit;
        }
        if !proven {
            return Knock::Prove;
        }
        let address = caller_of(address);
        if !self.callers.contains_key(&address) && self.callers.len() >= self.terms.addresses {
            self.forget_idle(now);
            if self.callers.len() >= self.terms.addresses {
                return Knock::Refuse;
            }
        }
        let (burst, refill) = (self.terms.burst, self.terms.refill);
        let caller =
            self.callers.entry(address).or_insert(Caller { left: burst, since: now, strangers: 0 });
        caller.refill(now, burst, refill);
        let full = self.strangers >= self.terms.strangers
            || caller.strangers >= self.terms.strangers_of_one;
        if full || caller.left == 0 {
            return Knock::Refuse;
        }
        caller.left -= 1;
        caller.strangers += 1;
        self.strangers += 1;
        Knock::Admit
    }

    /// A connection that was admitted (as a member's, if `member`) has shown a valid certificate,
    /// or has ended. It no longer counts.
    pub fn handle_left(&mut self, address: IpAddr, member: bool) {
        if member {
            self.members = self.members.saturating_sub(1);
            return;
        }
        self.strangers = self.strangers.saturating_sub(1);
        if let Some(caller) = self.callers.get_mut(&caller_of(address)) {
            caller.strangers = caller.strangers.saturating_sub(1);
        }
    }

    fn forget_idle(&mut self, now: Moment) {
        let (burst, refill) = (self.terms.burst, self.terms.refill);
        self.callers.retain(|_, caller| {
            caller.refill(now, burst, refill);
            caller.strangers > 0 || caller.left < burst
        });
    }
}

impl Caller {
    fn refill(&mut self, now: Moment, burst: u32, every: Duration) {
        let passed = now.since(self.since).as_micros() / every.as_micros().max(1);
        if passed > 0 {
            let passed = u32::try_from(passed).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(passed).min(burst);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(role: Option<Role>, expired: bool) -> Shown {
        Shown { node: NodeId(7), role, expired, issuer: 0, key: Digest::sha256(b"own") }
    }

    fn known(role: Option<Role>, level: Level) -> Known {
        let (pin, authority) = (None, 0);
        Known {
            role,
            removed: false,
            nothing_known: false,
            level,
            pin,
            authority,
            trusted_from: authority,
        }
    }

    #[test]
    fn every_certificate_has_the_standing_that_the_table_says() {
        use Role::{Edge, Replica};
        let (first, roles) = (Level::FIRST, Level::ROLES);
        let nobody = |s| matches!(s, Standing::Nobody(_));
        // a role in the certificate counts, whatever the level, and must be the recorded one
        for level in [first, roles] {
            assert_eq!(
                standing(&shown(Some(Replica), false), &known(Some(Replica), level)),
                Standing::Replica
            );
            assert_eq!(
                standing(&shown(Some(Edge), false), &known(Some(Edge), level)),
                Standing::Edge
            );
            assert_eq!(standing(&shown(Some(Edge), false), &known(None, level)), Standing::Edge);
            assert_eq!(
                standing(&shown(Some(Replica), false), &known(None, level)),
                Standing::Replica
            );
            assert!(nobody(standing(&shown(Some(Replica), false), &known(Some(Edge), level))));
            assert!(nobody(standing(&shown(Some(Edge), false), &known(Some(Replica), level))));
            assert_eq!(
                standing(&shown(Some(Replica), true), &known(Some(Replica), level)),
                Standing::RenewOnly
            );
            assert!(nobody(standing(&shown(Some(Replica), true), &known(None, level))));
        }
        // without one: what the records say, until the level is raised
        assert_eq!(standing(&shown(None, false), &known(Some(Edge), first)), Standing::Edge);
        assert_eq!(standing(&shown(None, false), &known(Some(Replica), first)), Standing::Replica);
        assert!(
            nobody(standing(&shown(None, false), &known(None, first))),
            "an unknown role is no replica's"
        );
        assert_eq!(
            standing(&shown(None, false), &known(Some(Replica), roles)),
            Standing::RenewOnly
        );
        assert!(nobody(standing(&shown(None, false), &known(None, roles))));
        let newcomer = Known { nothing_known: true, ..known(None, first) };
        assert_eq!(standing(&shown(None, false), &newcomer), Standing::Replica);
        // a removed node may do nothing, whatever it shows
        for role in [None, Some(Edge), Some(Replica)] {
            for expired in [false, true] {
                let removed = Known { removed: true, ..known(role, first) };
                assert!(nobody(standing(&shown(role, expired), &removed)));
            }
        }
    }

    #[test]
    fn a_node_whose_key_is_recorded_is_known_by_it_whoever_signed_its_certificate() {
        let own = Digest::sha256(b"own");
        let nobody = |s| matches!(s, Standing::Nobody(_));
        let listed = known(Some(Role::Replica), Level::NEWEST);
        let pinned = Known { pin: Some(own), ..listed };
        let replaced = Known { authority: 1, trusted_from: 1, ..pinned };
        let old = shown(Some(Role::Replica), false);
        let forged = Shown { key: Digest::sha256(b"thief"), ..old };
        for known in [pinned, replaced] {
            assert_eq!(standing(&old, &known), Standing::Replica);
            assert!(nobody(standing(&forged, &known)), "who has the authority's key");
            let forged_anew = Shown { issuer: 1, ..forged };
            assert!(nobody(standing(&forged_anew, &known)));
        }
        // without a recorded key: what the newest authority has signed
        // also before there is another
        let unlisted = Known { role: None, trusted_from: 1, ..listed };
        for known in [
            unlisted,
            Known { authority: 1, ..unlisted },
            Known { trusted_from: 1, authority: 1, ..listed },
        ] {
            assert!(nobody(standing(&old, &known)));
            assert_eq!(standing(&Shown { issuer: 1, ..old }, &known), Standing::Replica);
        }
    }

    #[test]
    fn a_node_that_lags_behind_believes_replicas_by_their_keys_and_nobody_else() {
        let own = Digest::sha256(b"own");
        let pinned = Known { pin: Some(own), ..known(Some(Role::Replica), Level::NEWEST) };
        let newer = Shown { issuer: 1, ..shown(Some(Role::Replica), false) };
        assert!(counts_unsigned(&newer, &pinned));
        for (shown, known) in [
            (Shown { key: Digest::sha256(b"thief"), ..newer }, pinned),
            (Shown { issuer: 0, ..newer }, pinned),
            (newer, Known { pin: None, ..pinned }),
            (newer, Known { role: Some(Role::Edge), ..pinned }),
            (newer, Known { role: None, ..pinned }),
            (newer, Known { removed: true, ..pinned }),
            (newer, Known { authority: 1, ..pinned }),
        ] {
            assert!(!counts_unsigned(&shown, &known), "{shown:?} {known:?}");
        }
    }

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn a_stranger_proves_its_address_and_has_to_wait_when_it_knocks_too_often() {
        let mut door = Doorkeeper::new(DoorkeeperTerms { burst: 2, ..DoorkeeperTerms::default() });
        let now = Moment::from_micros(0);
        assert_eq!(door.handle_knock(now, address(1), false, false), Knock::Prove);
        for _ in 0..2 {
            assert_eq!(door.handle_knock(now, address(1), false, true), Knock::Admit);
            door.handle_left(address(1), false);
        }
        assert_eq!(door.handle_knock(now, address(1), false, true), Knock::Refuse);
        assert_eq!(
            door.handle_knock(now, address(2), false, true),
            Knock::Admit,
            "others are not held up"
        );
        let later = now + DoorkeeperTerms::default().refill;
        assert_eq!(door.handle_knock(later, address(1), false, true), Knock::Admit);
    }

    #[test]
    fn a_member_comes_in_at_once_and_a_crowd_has_to_prove_itself() {
        let terms =
            DoorkeeperTerms { strangers: 8, strangers_of_one: 4, ..DoorkeeperTerms::default() };
        let mut door = Doorkeeper::new(terms);
        let now = Moment::from_micros(0);
        // strangers from three addresses take all places for strangers
        let strangers = (10..13)
            .flat_map(|n| [n; 4])
            .filter(|n| door.handle_knock(now, address(*n), false, true) == Knock::Admit);
        assert_eq!(strangers.count(), 8);
        // members are not affected
        assert_eq!(door.handle_knock(now, address(1), true, false), Knock::Admit);
        assert_eq!(door.handle_knock(now, address(1), true, false), Knock::Admit);
        assert_eq!(
            door.handle_knock(now, address(1), true, false),
            Knock::Prove,
            "the name of a member is no proof"
        );
        for _ in 0..6 {
            assert_eq!(door.handle_knock(now, address(1), true, true), Knock::Admit);
        }
        assert_eq!(
            door.handle_knock(now, address(1), true, true),
            Knock::Refuse,
            "there is an end to it"
        );
        door.handle_left(address(1), true);
        assert_eq!(door.handle_knock(now, address(2), true, true), Knock::Admit);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_caller() {
        let one: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let two: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        assert_eq!(caller_of(one), caller_of(two));
        assert_eq!(caller_of("::ffff:10.0.0.1".parse().unwrap()), address(1));
    }

    proptest! {
        #[test]
        fn no_sequence_of_knocks_admits_more_strangers_than_there_are_places(
            knocks in proptest::collection::vec((0u8..4, any::<bool>(), any::<bool>(), any::<bool>(), 0u64..100_000), 0..400)
        ) {
            let terms = DoorkeeperTerms { strangers: 8, strangers_of_one: 3, addresses: 3, ..DoorkeeperTerms::default() };
            let mut door = Doorkeeper::new(terms);
            let mut now = Moment::from_micros(0);
            let mut inside: Vec<u8> = Vec::new();
            let mut members = 0;
            for (n, member, proven, leaves, wait) in knocks {
                now = now + Duration::from_micros(wait);
                if leaves && let Some(gone) = inside.pop() {
                    door.handle_left(address(gone), false);
                }
                if door.handle_knock(now, address(n), member, proven) == Knock::Admit {
                    if member {
                        members += 1;
                    } else {
                        inside.push(n);
                    }
                }
                prop_assert!(members <= terms.strangers);
                prop_assert!(inside.len() <= terms.strangers);
                prop_assert!(inside.iter().filter(|i| **i == n).count() <= terms.strangers_of_one);
                prop_assert!(door.callers.len() <= terms.addresses);
            }
        }
    }
}
