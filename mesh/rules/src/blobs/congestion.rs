//! How much a link may have in flight: by what arrives, not by what is lost.
//!
//! CUBIC takes every lost packet for a full queue, and over an ocean a few in a thousand are lost
//! on their way: that alone holds it to a twentieth of what the path carries. This measures what
//! the path delivers (the most of the last rounds) and how long a packet takes at least, and keeps
//! a little more than their product in flight: every eighth round a quarter more, to find what has
//! become free, then less, so that the queue empties and the least time is seen again. Loss slows
//! it only where a round loses so much that a queue must be overflowing. A round is the time until
//! something sent after its beginning is acknowledged.
//!
//! Times are since any fixed moment.

use std::collections::VecDeque;
use std::time::Duration;

/// Packets in flight before anything is known: a blob's first group and the list of its groups go
/// out at once.
const FIRST: u64 = 64;
/// Packets that may always be in flight.
const LEAST: u64 = 4;
/// Rounds in which the highest rate is looked for; one of them is one that probes for more.
const REMEMBERED: usize = 12;
/// How long the least round trip is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// More in flight than the path holds, as time: processes and acknowledgements are late by this
/// much on a busy machine.
const SLACK: f64 = 0.005;
/// And this many packets: it matters to who has little, so that those who share a path come to have
/// the same.
const ADDED: u64 = 8;
/// In the beginning each round may double what is delivered, and a bit: 2 / ln 2.
const STARTING: f64 = 2.885;
/// Afterwards, round by round.
const CYCLE: [f64; 8] = [1.25, 0.8, 1.05, 1.05, 1.05, 1.05, 1.05, 1.05];
/// A round that delivers so much more than the best before has found more.
const GROWTH: f64 = 1.25;
/// Rounds without growth that end the beginning.
const PATIENT: u32 = 3;
/// The share of a round's bytes from which on loss means that a queue overflows.
const HEAVY_LOSS: f64 = 0.08;
/// A round trip so many times the least one is that of another path.
const OTHER_PATH: f64 = 2.0;

/// One direction of one connection.
#[derive(Clone, Debug)]
pub struct Congestion {
    packet: u64,
    phase: u64,
    window: u64,
    round: Round,
    rounds: u64,
    /// Bytes a second of the last rounds that were not held up by having nothing to send.
    rates: VecDeque<f64>,
    /// The least round trip in seconds, and when it was seen.
    shortest: Option<(f64, Duration)>,
    /// In the beginning: the best rate, and for how many rounds it has not grown.
    starting: Option<(f64, u32)>,
    /// After heavy loss no more than this.
    ceiling: Option<u64>,
    idle: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    begun: Duration,
    acked: u64,
    lost: u64,
    most_in_flight: u64,
    limited: bool,
    over: bool,
}

impl Congestion {
    /// Of packets of this many bytes. `phase` is any number, best a different one for each
    /// connection: those that share a path are not to probe at the same time.
    #[must_use]
    pub fn new(packet: u64, phase: u64) -> Self {
        Congestion {
            packet,
            phase,
            window: FIRST * packet,
            round: Round::default(),
            rounds: 0,
            rates: VecDeque::new(),
            shortest: None,
            starting: Some((0.0, 0)),
            ceiling: None,
            idle: true,
        }
    }

    /// How many bytes may be in flight.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.ceiling
            .map_or(self.window, |ceiling| self.window.min(ceiling))
            .max(LEAST * self.packet)
    }

    /// What it began with.
    #[must_use]
    pub fn first_window(&self) -> u64 {
        FIRST * self.packet
    }

    /// Packets have this many bytes from now on.
    pub fn handle_packet_size(&mut self, packet: u64) {
        self.packet = packet;
    }

    /// Something was sent.
    pub fn handle_sent(&mut self, now: Duration) {
        if std::mem::take(&mut self.idle) {
            self.round = Round { begun: now, ..Round::default() };
        }
    }

    /// A packet was acknowledged; `limited`: there was nothing more to send.
    pub fn handle_acked(&mut self, now: Duration, sent: Duration, bytes: u64, limited: bool) {
        let took = now.saturating_sub(sent).as_secs_f64();
        match self.shortest {
            Some((least, seen)) if took > least && now.saturating_sub(seen) < BELIEVED => {}
            before => {
                if before.is_some_and(|(least, _)| took > (least + SLACK) * OTHER_PATH) {
                    self.start_again();
                }
                self.shortest = Some((took, now));
            }
        }
        self.round.acked += bytes;
        self.round.limited |= limited;
        self.round.over |= sent >= self.round.begun;
        if self.starting.is_some() {
            self.window += bytes;
        }
    }

    /// Packets were lost; `persistent`: nothing has arrived for so long that nothing is known of
    /// the path any more.
    pub fn handle_lost(&mut self, bytes: u64, persistent: bool) {
        self.round.lost += bytes;
        if persistent {
            self.ceiling = Some(LEAST * self.packet);
        }
    }

    /// All of one acknowledgement was told; so many bytes are in flight now.
    pub fn handle_acks_told(&mut self, now: Duration, in_flight: u64) {
        self.round.most_in_flight = self.round.most_in_flight.max(in_flight);
        self.idle = in_flight == 0;
        if self.round.over {
            self.end_round(now);
        }
        self.aim();
    }

    fn end_round(&mut self, now: Duration) {
        let round = std::mem::replace(&mut self.round, Round { begun: now, ..Round::default() });
        let seconds = now.saturating_sub(round.begun).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        self.rounds += 1;
        let rate = round.acked as f64 / seconds;
        let limited = round.limited || (round.most_in_flight as f64) < 0.7 * self.window() as f64;
        let heavy = round.lost as f64 > HEAVY_LOSS * (round.lost + round.acked) as f64;
        if !limited || rate > self.rate() {
            self.rates.push_back(rate);
            if self.rates.len() > REMEMBERED {
                self.rates.pop_front();
            }
        }
        if let Some((best, stuck)) = &mut self.starting {
            if rate >= *best * GROWTH {
                (*best, *stuck) = (rate, 0);
            } else if !limited {
                *stuck += 1;
                if *stuck >= PATIENT || heavy {
                    self.starting = None;
                    // the next round empties the queue, then comes one of those that only hold on
                    self.rounds = 1;
                }
            }
        } else if heavy && !limited {
            self.ceiling = Some((self.window() as f64 * 0.85) as u64);
            return;
        }
        // what was too much once may be right again
        self.ceiling = self
            .ceiling
            .map(|ceiling| ceiling + ceiling / 4)
            .filter(|ceiling| *ceiling < self.window);
    }

    /// Another path, or one that has not been measured for so long that the queue may have been
    /// taken for it: as at the beginning.
    fn start_again(&mut self) {
        self.starting = Some((self.rate(), 0));
    }

    /// The first cycle begins with its second round, to empty the queue; then each has up to three
    /// rounds more than the table, by the phase.
    fn gain(&self) -> f64 {
        let length = CYCLE.len() as u64 + self.phase % 4;
        CYCLE.get((self.rounds % length) as usize).copied().unwrap_or(CYCLE[CYCLE.len() - 1])
    }

    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn aim(&mut self) {
        let Some((shortest, _)) = self.shortest else { return };
        let held = self.rate() * (shortest + SLACK);
        if held <= 0.0 {
            return;
        }
        self.window = if self.starting.is_some() {
            self.window.min((held * STARTING) as u64).max(self.first_window())
        } else {
            (held * self.gain()) as u64 + ADDED * self.packet
        };
    }
}

#[cfg(test)]
mod tests;
