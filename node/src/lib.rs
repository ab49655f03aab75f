//! `atoll`: a container registry that is a mesh. The registry itself is the crate `registry`; this
//! crate has its faces.
//!
//! | room | what it does |
//! |---|---|
//! | [`http`] | connections, routes, the front door, bodies, the table of errors |
//! | [`oci`] | the registry's verbs under `/v2/`, and `/service/token` |
//! | [`harbor`] | projects and registries in Harbor's manner, under `/api/v2.0/` |
//! | [`atoll`] | the state of the mesh, under `/api/atoll/v1/` |
//! | [`adapter`] | the built-in scanner, for other registries |
//! | [`peers`] | answers requests of other nodes |
//! | [`start`] | builds the rooms and joins them; the only place that does |
//! | [`cli`] | the command line |
//!
//! A face uses `http` and the registry, and no other face.

pub mod adapter;
pub mod atoll;
pub mod cli;
pub mod harbor;
pub mod http;
pub mod oci;
pub mod peers;
pub mod start;
