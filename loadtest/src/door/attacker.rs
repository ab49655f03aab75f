//! An attacker: one thread that opens connections from other addresses of loopback, sends what an
//! attack sends, counts it, and takes only a share of one core.
//!
//! A real attacker has a machine of its own. Here it shares the cores with the node and with the
//! clients. So it sleeps when it has used more than its share of one core: what the pulls then lose
//! is what the node does for the attacker, and little of it what the attacker does.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

/// The longest that an attacker sleeps at once.
const NAP: Duration = Duration::from_millis(5);
/// How many steps there are between two looks at the clock.
const STEPS: usize = 32;
/// What an attacker that had to wait may do at once, in seconds of processor.
const BURST: f64 = 0.01;

/// What an attacker has done.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Sent {
    /// Connections that it began to open.
    pub(crate) connections: u64,
    /// Connections that it could not open, or that the node ended.
    pub(crate) ended: u64,
    /// Things of which the attack is made: heads, resets, bytes of slow heads.
    pub(crate) things: u64,
    /// Bytes.
    pub(crate) bytes: u64,
    /// Connections that were open at the end.
    pub(crate) open: u64,
    /// How long it went on, in seconds.
    pub(crate) seconds: f64,
    /// Seconds of processor that it used.
    pub(crate) cpu_seconds: f64,
}

/// What an attack does next, a little at a time.
pub(crate) trait Storm: Send {
    /// One step. Whether it did something: one that only waits lets the thread sleep.
    fn step(&mut self, sent: &mut Sent) -> bool;

    /// How many connections it has open.
    fn open(&self) -> usize;
}

/// Where connections come from, and where they go.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    from: Vec<IpAddr>,
    to: SocketAddr,
    next: usize,
    /// How much the kernel takes of answers that are not read, if not what it likes.
    receive: Option<usize>,
}

impl Way {
    /// From `count` addresses of loopback, the first of which is 127.0.0.2. None: from the address
    /// of the pullers.
    pub(crate) fn new(to: SocketAddr, count: u8) -> Self {
        let one = |n| IpAddr::from(Ipv4Addr::new(127, 0, 0, n));
        let from = if count == 0 { vec![one(1)] } else { (2..2 + count).map(one).collect() };
        Way { from, to, next: 0, receive: None }
    }

    /// With small buffers for answers.
    pub(crate) fn reading_little(mut self) -> Self {
        self.receive = Some(4 << 10);
        self
    }

    /// Begins to open a connection from the next address. It neither waits, nor leaves anything to
    /// wait for at its end: it ends with a reset.
    pub(crate) fn open(&mut self, sent: &mut Sent) -> io::Result<TcpStream> {
        sent.connections += 1;
        let from = self.from[self.next % self.from.len()];
        self.next += 1;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_linger(Some(Duration::ZERO))?;
        if let Some(receive) = self.receive {
            socket.set_recv_buffer_size(receive)?;
        }
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.set_nonblocking(true)?;
        match socket.connect(&self.to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(UNDER_WAY) => {}
            Err(error) => return Err(error),
        }
        Ok(socket.into())
    }
}

const UNDER_WAY: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

/// Attacks until `stop`, with at most this share of one core.
pub(crate) fn attack(storm: &mut dyn Storm, share: f64, stop: &AtomicBool) -> Sent {
    let (mut sent, begun, cpu) = (Sent::default(), Instant::now(), spent());
    let (mut left, mut looked, mut used) = (BURST, begun, cpu);
    while !stop.load(Ordering::Relaxed) {
        let mut busy = false;
        for _ in 0..STEPS {
            busy |= storm.step(&mut sent);
        }
        let (now, by_now) = (Instant::now(), spent());
        left += (now - looked).as_secs_f64() * share - (by_now - used);
        left = left.min(BURST);
        (looked, used) = (now, by_now);
        if left < 0.0 {
            std::thread::sleep(Duration::from_secs_f64(-left / share).min(NAP));
        } else if !busy {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    sent.open = storm.open() as u64;
    sent.seconds = begun.elapsed().as_secs_f64();
    sent.cpu_seconds = spent() - cpu;
    sent
}

/// Seconds of processor of this thread.
fn spent() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Lets this process, and those that it starts, open as many files as the system allows; at least
/// `wanted` where it may raise the limit itself. How many that is.
pub(crate) fn raise_open_files(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.map_or(wanted, |most| most.max(wanted));
    for maximum in [Some(hard), now.maximum] {
        let current = maximum.map(|most| most.min(wanted.max(now.current.unwrap_or(most))));
        if setrlimit(Resource::Nofile, Rlimit { current, maximum }).is_ok() {
            break;
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    struct Opening(Way, Vec<TcpStream>);

    impl Storm for Opening {
        fn step(&mut self, sent: &mut Sent) -> bool {
            if self.1.len() == 3 {
                return false;
            }
            self.1.push(self.0.open(sent).unwrap());
            true
        }

        fn open(&self) -> usize {
            self.1.len()
        }
    }

    #[test]
    fn an_attacker_comes_from_its_own_addresses_and_stops_when_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Way::new(listener.local_addr().unwrap(), 2);
        let (mut storm, stop) = (Opening(way, Vec::new()), AtomicBool::new(false));
        let (from, sent) = std::thread::scope(|scope| {
            let attack = scope.spawn(|| attack(&mut storm, 0.5, &stop));
            let mut from = Vec::new();
            for _ in 0..3 {
                from.push(listener.accept().unwrap().1.ip().to_string());
            }
            stop.store(true, Ordering::Relaxed);
            (from, attack.join().unwrap())
        });
        assert_eq!(from, ["127.0.0.2", "127.0.0.3", "127.0.0.2"]);
        assert_eq!((sent.connections, sent.open, sent.ended), (3, 3, 0));
        let shared = Way::new(listener.local_addr().unwrap(), 0);
        assert_eq!(shared.from, [IpAddr::from([127, 0, 0, 1])], "the pullers' own");
    }
}
