//! How many bytes a link may have in flight. This is decided by what arrives, not by what is lost.
//!
//! CUBIC takes every lost packet as the sign of a full queue. Over an ocean a few packets in a
//! thousand are lost for other reasons, and this alone limits CUBIC to a twentieth of the path's
//! capacity. This controller measures the delivery rate (the maximum of the last rounds) and the
//! minimum round trip, and keeps a little more than their product in flight. In every eighth round
//! it sends a quarter more, to find capacity that has become free, and then less, so that the queue
//! empties and the minimum round trip is seen again. Loss slows it only if a round loses so much
//! that a queue must be overflowing. A round is the time until something that was sent after the
//! round's beginning is acknowledged.
//!
//! All times are measured from one arbitrary fixed moment.

use std::collections::VecDeque;
use std::time::Duration;

/// The number of packets in flight before anything was measured. It is enough to send a blob's
/// first group and the list of its groups at once.
const FIRST: u64 = 64;
/// The number of packets that may always be in flight.
const LEAST: u64 = 4;
/// The number of rounds whose highest rate is used. At least one of them probes for more.
const REMEMBERED: usize = 12;
/// How long the minimum round trip is used.
const BELIEVED: Duration = Duration::from_secs(10);
/// Extra bytes in flight, given as time: on a busy machine, processes and acknowledgements are late
/// by this much.
const SLACK: f64 = 0.005;
/// Extra packets in flight. They matter most to slow connections, so connections that share a path
/// approach equal rates.
const ADDED: u64 = 8;
/// The gain of the start phase, in which each round may slightly more than double the rate: 2 / ln
/// 2.
const STARTING: f64 = 2.885;
/// The gains of the rounds after the start phase.
const CYCLE: [f64; 8] = [1.25, 0.8, 1.05, 1.05, 1.05, 1.05, 1.05, 1.05];
/// A round whose rate is this many times the best rate before counts as growth.
const GROWTH: f64 = 1.25;
/// The number of rounds without growth after which the start phase ends.
const PATIENT: u32 = 3;
/// The share of a round's bytes whose loss means that a queue overflows.
const HEAVY_LOSS: f64 = 0.08;
/// A round trip that is this many times the minimum is taken for that of another path.
const OTHER_PATH: f64 = 2.0;

/// The state of one direction of one connection.
#[derive(Clone, Debug)]
pub struct Congestion {
    packet: u64,
    phase: u64,
    window: u64,
    round: Round,
    rounds: u64,
    /// Rates of the last rounds in bytes per second, without rounds that had too little to send.
    rates: VecDeque<f64>,
    /// The minimum round trip in seconds, and when it was measured.
    shortest: Option<(f64, Duration)>,
    /// During the start phase: the best rate, and the number of rounds since it last grew.
    starting: Option<(f64, u32)>,
    /// The maximum number of bytes in flight after heavy loss.
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
    /// A connection with packets of `packet` bytes. `phase` is any number, preferably a different
    /// one for each connection, so that connections that share a path do not probe at the same
    /// time.
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

    /// The number of bytes that may be in flight.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.ceiling
            .map_or(self.window, |ceiling| self.window.min(ceiling))
            .max(LEAST * self.packet)
    }

    /// The initial window in bytes.
    #[must_use]
    pub fn first_window(&self) -> u64 {
        FIRST * self.packet
    }

    /// From now on packets have `packet` bytes.
    pub fn handle_packet_size(&mut self, packet: u64) {
        self.packet = packet;
    }

    /// A packet was sent.
    pub fn handle_sent(&mut self, now: Duration) {
        if std::mem::take(&mut self.idle) {
            self.round = Round { begun: now, ..Round::default() };
        }
    }

    /// A packet was acknowledged. `limited` means that there was nothing more to send.
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

    /// Packets were lost. `persistent` means that no packet has arrived for so long that all
    /// measurements are out of date.
    pub fn handle_lost(&mut self, bytes: u64, persistent: bool) {
        self.round.lost += bytes;
        if persistent {
            self.ceiling = Some(LEAST * self.packet);
        }
    }

    /// All packets of one acknowledgement were reported; `in_flight` bytes are in flight now.
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
                    // the next round empties the queue, and the rounds after it use the steady
                    // gains
                    self.rounds = 1;
                }
            }
        } else if heavy && !limited {
            self.ceiling = Some((self.window() as f64 * 0.85) as u64);
            return;
        }
        // a window that was too large once may be right now
        self.ceiling = self
            .ceiling
            .map(|ceiling| ceiling + ceiling / 4)
            .filter(|ceiling| *ceiling < self.window);
    }

    /// The path has changed, or it was not measured for so long that queueing may be part of the
    /// minimum round trip. Starts as for a new connection.
    fn start_again(&mut self) {
        self.starting = Some((self.rate(), 0));
    }

    /// The first cycle begins with its second round, to empty the queue. Each later cycle is up to
    /// three rounds longer than the table, depending on the phase.
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
