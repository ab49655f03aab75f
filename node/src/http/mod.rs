//! HTTP: connections, routes, bodies, errors. What a request means is decided in the registry and
//! the other faces.

pub mod answer;
mod certificate;
pub mod conditional;
pub mod door;
pub mod errors;
mod listen;
mod origin;
mod patience;
mod payload;
pub mod range;
pub mod request;
pub mod route;
mod small_first;

pub use errors::{Code, Failure};
pub use listen::{ConnectionTerms, Listener, serve};
pub use payload::{Parts, Payload, Piece};
