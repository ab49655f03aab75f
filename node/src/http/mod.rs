//! HTTP: connections, routes, bodies, errors. What a request means is decided in the registry and
//! the other faces.

pub mod answer;
mod begun;
mod certificate;
pub mod conditional;
mod connection;
pub mod door;
pub mod drills;
pub mod errors;
mod handshakes;
mod listen;
mod origin;
mod patience;
mod payload;
pub mod policies;
mod punishing;
pub mod request;
pub mod request_id;
pub mod route;
mod scanning;
mod small_first;
mod socket;
mod stored;
mod streams;
pub mod upkeep;

pub use connection::ConnectionTerms;
pub use errors::{Code, Failure};
pub use listen::{Listener, serve};
pub use payload::{Parts, Payload, Piece};
