//! Other registries: what is cached of them, and what a request means that names one of them.

pub mod budget;
pub mod denials;
pub mod mirror;
pub mod places;
pub mod proxy;
pub mod shelf;
pub mod tags;
