//! What Atoll promises, a module for each promise, against real processes. `tests/run NAME` runs
//! one of them.

mod ailing_disk;
mod arrows;
mod clients;
mod cold_pull;
mod conformance;
mod copying;
mod doors;
mod durability;
mod edges;
mod fanout;
mod faults;
mod fleet;
mod freshness;
mod greedy;
mod guesses;
mod healing;
mod hostile;
mod joining;
mod kill_primary;
mod lifecycle;
mod lying;
mod mirrors;
mod old_terms;
mod pacing;
mod partition;
mod power_loss;
mod preheat;
mod proxy;
mod proxy_failing;
mod questions;
mod registries;
mod settled;
mod snapshot;
mod stalling;
mod tls;
