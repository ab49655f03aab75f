//! Senders over one narrow link: what arrives, and what is lost on the way or because the queue is
//! full.

use std::collections::BTreeMap;

use super::*;

const PACKET: u64 = 1400;
const STEP: Duration = Duration::from_micros(100);

struct Path {
    rate: f64,
    round_trip: f64,
    queue: f64,
    /// One in so many packets is lost; 0: none.
    loses: u64,
}

/// Where a packet sent at a moment ends: acknowledged or lost, and when the sender knows.
#[derive(Clone, Copy)]
struct Ends {
    sender: usize,
    sent: Duration,
    lost: bool,
}

struct Sending {
    congestion: Congestion,
    in_flight: u64,
    delivered: u64,
    may_send: f64,
    smooth: f64,
}

/// Lets senders run for so many seconds; the path may change at a moment. Bytes delivered by each
/// in the last half.
fn run(senders: usize, seconds: f64, path: impl Fn(f64) -> Path) -> Vec<f64> {
    let new = |sender| Sending {
        congestion: Congestion::new(PACKET, sender as u64),
        in_flight: 0,
        delivered: 0,
        may_send: 0.0,
        smooth: 0.1,
    };
    let mut all: Vec<Sending> = (0..senders).map(new).collect();
    let (mut ends, mut number, mut busy) = (BTreeMap::<(u64, u64), Ends>::new(), 0_u64, 0.0_f64);
    let mut now = Duration::ZERO;
    let mut half = vec![0; senders];
    while now.as_secs_f64() < seconds {
        let at = now.as_secs_f64();
        let Path { rate, round_trip, queue, loses } = path(at);
        while let Some(first) =
            ends.first_entry().filter(|first| first.key().0 <= now.as_nanos() as u64)
        {
            let Ends { sender, sent, lost } = first.remove();
            let one = &mut all[sender];
            one.in_flight -= PACKET;
            if lost {
                one.congestion.handle_lost(PACKET, false);
            } else {
                one.delivered += PACKET;
                one.smooth = one.smooth * 0.875 + (now - sent).as_secs_f64() * 0.125;
                one.congestion.handle_acked(now, sent, PACKET, false);
                one.congestion.handle_acks_told(now, one.in_flight);
            }
        }
        for (sender, one) in all.iter_mut().enumerate() {
            while one.in_flight + PACKET <= one.congestion.window() && one.may_send <= at {
                one.may_send = one.may_send.max(at - 0.002)
                    + PACKET as f64 * one.smooth / (1.25 * one.congestion.window() as f64);
                one.congestion.handle_sent(now);
                one.in_flight += PACKET;
                number += 1;
                // scattered, but the same in every run
                let unlucky = loses > 0 && number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % loses == 0;
                let begin = busy.max(at);
                let dropped = begin - at > queue;
                if !dropped {
                    busy = begin + PACKET as f64 / rate;
                }
                // a loss is noticed when later packets are acknowledged
                let known = busy + round_trip + if unlucky || dropped { 0.002 } else { 0.0 };
                ends.insert(
                    ((known * 1e9) as u64, number),
                    Ends { sender, sent: now, lost: unlucky || dropped },
                );
            }
        }
        if half.iter().all(|half| *half == 0) && at * 2.0 > seconds {
            half = all.iter().map(|one| one.delivered).collect();
        }
        now += STEP;
    }
    all.iter().zip(half).map(|(one, half)| (one.delivered - half) as f64 * 2.0 / seconds).collect()
}

#[test]
fn a_path_is_used_whatever_it_loses() {
    for (name, rate, round_trip, loses) in [
        ("near", 12.5e6, 0.03, 0),
        ("far", 12.5e6, 0.1, 1000),
        ("very far", 6.25e6, 0.2, 100),
        ("poor", 1e6, 0.15, 50),
    ] {
        let got = run(1, 20.0, |_| Path { rate, round_trip, queue: round_trip, loses })[0];
        assert!(got > 0.85 * rate, "{name}: {:.2} of the path", got / rate);
    }
}

#[test]
fn a_short_queue_is_not_overrun() {
    let rate = 12.5e6;
    let got = run(1, 20.0, |_| Path { rate, round_trip: 0.1, queue: 0.01, loses: 0 })[0];
    assert!(got > 0.75 * rate, "{:.2} of the path", got / rate);
}

#[test]
fn a_path_that_becomes_longer_or_wider_is_learnt_again() {
    let longer = |at: f64| Path {
        rate: 12.5e6,
        round_trip: if at < 5.0 { 0.001 } else { 0.1 },
        queue: 0.1,
        loses: 1000,
    };
    let got = run(1, 50.0, longer)[0];
    assert!(got > 0.8 * 12.5e6, "longer: {:.2} of the path", got / 12.5e6);
    let wider = |at: f64| Path {
        rate: if at < 5.0 { 1e6 } else { 12.5e6 },
        round_trip: 0.05,
        queue: 0.05,
        loses: 1000,
    };
    let got = run(1, 30.0, wider)[0];
    assert!(got > 0.8 * 12.5e6, "wider: {:.2} of the path", got / 12.5e6);
}

#[test]
fn senders_share_a_path() {
    let got = run(3, 40.0, |_| Path { rate: 12.5e6, round_trip: 0.05, queue: 0.05, loses: 1000 });
    let (all, least) = (got.iter().sum::<f64>(), got.iter().copied().fold(f64::INFINITY, f64::min));
    assert!(all > 0.85 * 12.5e6, "together {:.2} of the path", all / 12.5e6);
    assert!(least > 0.25 * all / 3.0, "shares: {got:?}");
}

#[test]
fn little_to_send_says_nothing_about_the_path() {
    let mut congestion = Congestion::new(PACKET, 0);
    let ms = Duration::from_millis;
    for at in 0..50 {
        let sent = ms(at * 1000);
        congestion.handle_sent(sent);
        congestion.handle_acked(sent + ms(50), sent, 200, true);
        congestion.handle_acks_told(sent + ms(50), 0);
    }
    assert!(congestion.window() >= congestion.first_window(), "{}", congestion.window());
}
