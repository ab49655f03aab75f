//! Remembers whose connections were of no use ([`rules::people::penalties`]), and says so in the
//! log, at most once a second however many there are.

use std::net::IpAddr;
use std::time::Duration;

use ground::clock;
use parking_lot::Mutex;
use rules::people::penalties::{Penalties, Waste};
use rules::words::moment::Moment;
use tracing::warn;

/// The time between two lines in the log.
const LINE: Duration = Duration::from_secs(1);

/// The addresses of one listener.
pub(super) struct Punishing(Mutex<State>);

struct State {
    penalties: Penalties,
    said: Option<Moment>,
    unsaid: u64,
}

impl Punishing {
    /// Nobody has wasted anything yet. An address may waste `allowance` connections at once; 0: as
    /// many as it likes.
    pub(super) fn new(allowance: u32) -> Self {
        Punishing(Mutex::new(State { penalties: Penalties::new(allowance), said: None, unsaid: 0 }))
    }

    /// Whether a connection from `address`, which is no trusted proxy, may be served.
    pub(super) fn admit(&self, address: IpAddr) -> bool {
        self.0.lock().penalties.admit(clock::now(), address)
    }

    /// A connection from there was of no use.
    pub(super) fn wasted(&self, client: IpAddr, waste: Waste) {
        let now = clock::now();
        let (penalty, others) = {
            let mut state = self.0.lock();
            let Some(penalty) = state.penalties.wasted(now, client, waste) else { return };
            let says = state.said.is_none_or(|said| now.since(said) >= LINE);
            if says {
                state.said = Some(now);
                (penalty, Some(std::mem::take(&mut state.unsaid)))
            } else {
                state.unsaid += 1;
                (penalty, None)
            }
        };
        metrics::counter!("atoll_clients_punished_total").increment(1);
        if let Some(others) = others {
            warn!(
                %client,
                last = ?waste,
                seconds = penalty.length.as_secs(),
                number = penalty.number,
                others,
                "this address has wasted too many connections: it has few new ones for a while \
                 (http.wasted_connections)"
            );
        }
    }
}
