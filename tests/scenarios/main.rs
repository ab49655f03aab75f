//! What Atoll promises, a module for each promise, against real processes. `tests/run NAME` runs one of them.

mod arrows;
mod clients;
mod cold_pull;
mod conformance;
mod copying;
mod durability;
mod edges;
mod fanout;
mod fleet;
mod freshness;
mod greedy;
mod hostile;
mod joining;
mod kill_primary;
mod lifecycle;
mod lying;
mod mirrors;
mod pacing;
mod partition;
mod power_loss;
mod preheat;
mod proxy;
mod settled;
mod snapshot;
mod stalling;
mod tls;
