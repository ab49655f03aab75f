//! People and their permissions.
//!
//! | module | what it holds |
//! |---|---|
//! | [`access`] | identities, scopes of tokens, and who may do what |
//! | [`roles`] | what each role may do in a project |
//! | [`doors`] | what each route of the API needs |
//! | [`robots`] | what a robot may be granted, and its secret |
//! | [`configurations`] | settings that are in the ledger |
//! | [`groups`] | what groups of identity providers are called |
//! | [`ldap`] | how an LDAP directory is asked, and for how long what it said counts |
//! | [`provider_tokens`] | when an OIDC provider is asked about somebody again |
//! | [`passes`] | what another scanner may read, while it scans |
//! | [`passwords`] | which passwords are accepted |
//! | [`keys`] | which key signs tokens, and when there is a new one |
//! | [`trusts`] | whose tokens of other issuers are accepted |
//! | [`discovery`] | when such an issuer is asked for its keys |
//! | [`crowd`] | how many connections clients may have open |
//! | [`streams`] | when an HTTP/2 connection is ended for its client's requests |
//! | [`penalties`] | which addresses have few new connections for a while |
//! | [`windows`] | how much a client may send over HTTP/2 before it was read |
//! | [`guesses`] | who may have a password checked now |

pub mod access;
pub mod configurations;
pub mod crowd;
pub mod discovery;
pub mod doors;
pub mod groups;
pub mod guesses;
pub mod keys;
pub mod ldap;
pub mod passes;
pub mod passwords;
pub mod penalties;
pub mod provider_tokens;
pub mod robots;
pub mod roles;
pub mod streams;
pub mod trusts;
pub mod windows;
