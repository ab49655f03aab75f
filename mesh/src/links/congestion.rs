//! Binds [`rules::blobs::congestion`] to quinn.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;
use rules::blobs::congestion::Congestion;

/// Creates a controller for each path.
#[derive(Debug, Default)]
pub(super) struct ByDelivery;

impl ControllerFactory for ByDelivery {
    fn build(self: Arc<Self>, now: Instant, packet: u16) -> Box<dyn Controller> {
        Box::new(Controlled {
            begun: now,
            congestion: Congestion::new(u64::from(packet), rand::random()),
        })
    }
}

#[derive(Clone)]
struct Controlled {
    begun: Instant,
    congestion: Congestion,
}

impl Controlled {
    fn since(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.begun)
    }
}

impl Controller for Controlled {
    fn on_sent(&mut self, now: Instant, _bytes: u64, _last_packet_number: u64) {
        self.congestion.handle_sent(self.since(now));
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.congestion.handle_acked(self.since(now), self.since(sent), bytes, app_limited);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        _app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.congestion.handle_acks_told(self.since(now), in_flight);
    }

    fn on_congestion_event(
        &mut self,
        _now: Instant,
        _sent: Instant,
        is_persistent: bool,
        lost_bytes: u64,
    ) {
        self.congestion.handle_lost(lost_bytes, is_persistent);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.congestion.handle_packet_size(u64::from(new_mtu));
    }

    fn window(&self) -> u64 {
        self.congestion.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.congestion.first_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
