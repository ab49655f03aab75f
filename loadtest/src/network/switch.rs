//! Moves packets between the TUN devices as the model says, on a thread of its own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{read, write};

use super::model::Model;

/// Packets of one device in a turn, so that one fast sender does not make the others late.
const TURN: usize = 64;

/// The longest sleep, in seconds: how late the end is noticed.
const LONGEST_SLEEP: f64 = 0.1;

/// The shortest one: packets that come in quick succession go on together, at this much of jitter.
const SHORTEST_SLEEP: f64 = 0.0002;

/// The thread; dropping this ends it and closes the devices.
#[derive(Debug)]
pub(super) struct Switch {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A packet on its way: ordered by when it arrives (nanoseconds), then by when it came.
type Flying = Reverse<(u64, u64, usize, Vec<u8>)>;

impl Switch {
    /// Starts it. The device's place in the list is the node's number.
    pub(super) fn start(devices: Vec<OwnedFd>, model: Arc<Mutex<Model>>) -> io::Result<Self> {
        let end = Arc::new(AtomicBool::new(false));
        let asked = end.clone();
        let thread = std::thread::Builder::new().name("switch".into());
        let thread = thread.spawn(move || run(&devices, &model, &asked))?;
        Ok(Switch { end, thread: Some(thread) })
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(devices: &[OwnedFd], model: &Mutex<Model>, end: &AtomicBool) {
    let begun = Instant::now();
    let mut flying: BinaryHeap<Flying> = BinaryHeap::new();
    let mut came = 0;
    let mut buffer = vec![0; 1 << 16];
    let mut ready: Vec<_> =
        devices.iter().map(|device| PollFd::new(device, PollFlags::IN)).collect();
    while !end.load(Ordering::Relaxed) {
        let now = begun.elapsed().as_secs_f64();
        let next = flying.peek().map_or(LONGEST_SLEEP, |Reverse((at, ..))| *at as f64 / 1e9 - now);
        let sleep = if next <= 0.0 { 0.0 } else { next.clamp(SHORTEST_SLEEP, LONGEST_SLEEP) };
        let sleep = Timespec { tv_sec: 0, tv_nsec: (sleep * 1e9) as _ };
        if poll(&mut ready, Some(&sleep)).is_err() {
            continue; // a signal
        }
        let mut model = model.lock().unwrap_or_else(|broken| broken.into_inner());
        for (from, device) in
            devices.iter().enumerate().filter(|(from, _)| !ready[*from].revents().is_empty())
        {
            for _ in 0..TURN {
                let Ok(length) = read(device, &mut buffer) else { break };
                let packet = &buffer[..length];
                let Some(to) = destination(packet, model.nodes()) else { continue };
                let now = begun.elapsed().as_secs_f64();
                if let Some(at) = model.send(now, from, to, length, rand::random()) {
                    came += 1;
                    flying.push(Reverse(((at * 1e9) as u64, came, to, packet.to_vec())));
                }
            }
        }
        drop(model);
        let now = begun.elapsed().as_nanos() as u64;
        while flying.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            if let Some(Reverse((.., to, packet))) = flying.pop() {
                let _ = write(&devices[to], &packet); // a device that is full drops it, as a network card does
            }
        }
    }
}

/// The node that an IPv4 packet is for: its address is 10.64.0.(number + 1).
fn destination(packet: &[u8], nodes: usize) -> Option<usize> {
    let [version, ..] = packet else { return None };
    let [10, 64, 0, last] = packet.get(16..20)? else { return None };
    (version >> 4 == 4).then_some(usize::from(*last).checked_sub(1)?).filter(|node| *node < nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packets_for_nodes_have_a_destination() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 64, 0, 2]);
        assert_eq!(destination(&packet, 2), Some(1));
        assert_eq!(destination(&packet, 1), None);
        packet[0] = 0x60;
        assert_eq!(destination(&packet, 2), None);
        assert_eq!(destination(&[], 2), None);
    }
}
