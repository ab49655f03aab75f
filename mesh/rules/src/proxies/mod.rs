//! Other registries: what is cached of them, and what a request means that names one.

pub mod mirror;
pub mod proxy;
pub mod tags;
