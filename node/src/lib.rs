//! `atoll`: a container registry that is a mesh.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | the command line: up, serve, init, invite, join, status, mirror, preheat |
//! | [`start`] | builds the rooms; the only place that does |
//! | [`serving`] | from a request to its answer; the only place where HTTP meets the rooms |
//! | [`http`] | connections, routes, bodies, the table of errors |
//! | [`registry`] | the registry's verbs |
//! | [`api`] | projects and status |
//! | [`access`] | who is asking |
//! | [`writes`] | a project's writes: to its primary, and there into the ledger |
//! | [`flights`], [`copies`], [`transfers`] | blobs on their way in, uploads copied out, what moves now |
//! | [`liars`], [`rechecks`] | peers that were caught sending wrong bytes; own copies that peers complain of |
//! | [`pacing`] | how fast blobs go towards a region |
//! | [`outgoing`] | blobs to peers, and who passes them on to whom |
//! | [`peers`] | what this node does when another asks |
//! | [`proxies`] | what a tag means upstream, asked once for the whole mesh |
//! | [`mirrors`] | which repository a request means that names another registry |
//! | [`preheats`] | images brought into regions before anyone asks |
//! | [`neighbours`] | the other nodes as this one sees them |
//! | [`certificate`] | this node's certificate, renewed in time |
//! | [`listed`] | what the records say of a peer, for the links |
//! | [`birth`] | what a new mesh begins with |
//! | [`records`] | the ledger as the node reads it: its own, or what an edge asks and keeps |
//! | [`private`] | what a node keeps is for its own user's eyes |
//! | [`lock`] | the data folder is one process's at a time |
//! | [`observe`] | logs and metrics |

pub mod access;
pub mod api;
pub mod birth;
pub mod certificate;
pub mod cli;
pub mod copies;
pub mod flights;
pub mod http;
pub mod liars;
pub mod listed;
pub mod lock;
pub mod mirrors;
pub mod neighbours;
pub mod observe;
pub mod outgoing;
pub mod pacing;
pub mod peers;
pub mod preheats;
pub mod private;
pub mod proxies;
pub mod rechecks;
pub mod records;
pub mod registry;
pub mod serving;
pub mod start;
pub mod transfers;
pub mod writes;
