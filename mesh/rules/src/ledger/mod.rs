//! The replicated log: what it contains, what may change it, and who may read it when.
//!
//! | module | what it holds |
//! |---|---|
//! | [`admitted`] | pulls that gates have let pass, while that counts |
//! | [`records`] | keys, values, and the traits for whatever stores them |
//! | [`command`], [`apply`] | what may change the ledger, and the one function that changes it |
//! | [`appending`] | how much of the log may be under way to a follower |
//! | [`change`] | a project's write, before its primary has added the epoch |
//! | [`cached`] | what proxy projects cache: records of the same form, outside of the ledger |
//! | [`precondition`] | what a writer expects before its write |
//! | [`people`] | users, robots, members, keys of tokens: records and changes |
//! | [`directory`] | what is known from identity providers: groups, and whom they vouch for |
//! | [`provider_tokens`] | with what the OIDC provider is asked about people again |
//! | [`policies`] | what projects decide about their artifacts; when those were pulled |
//! | [`quotas`] | what each project stores, and how much it may |
//! | [`sign_due`] | what the mesh shall sign by itself, and what keeps it from that |
//! | [`sign_log`] | the keys that the mesh signs with, and all that it has signed |
//! | [`signatures`] | whom projects trust to sign, and what signatures are worth |
//! | [`scanners`] | other scanners than the one that is built in, and what they have reported |
//! | [`scanning`] | which images are scanned, and what was found in them |
//! | [`sealing`] | which keys seal the secrets in the records |
//! | [`stored`] | what a repository stores, read without the bytes |
//! | [`told`] | what replicas tell edges of changes: of what decides about pulls, of what is gone |
//! | [`trash`] | what was deleted, for the time that it can be restored |
//! | [`trust`] | the key of each node, and the mesh's authorities |
//! | [`collecting`] | which blobs nothing refers to any more, and when their bytes may go |
//! | [`drills`] | a region that refuses its clients for a time, to see what happens |
//! | [`draining`] | replicas that give away what others need them for |
//! | [`leaving`] | the removal of a replica, from the first word to the last |
//! | [`events`] | what happened: who changed what |
//! | [`labels`] | words that people put on artifacts |
//! | [`jobs`] | background work: records, schedules, and what may begin when |
//! | [`upkeep`] | runs of collections and purges that people see |
//! | [`lease`] | read leases: when a replica may answer by itself, when a write is released |
//! | [`returning`] | a replica that comes back with less than its disk had |
//! | [`level`] | which formats all replicas have agreed to use |
//! | [`fingerprint`] | whether replicas have the same records |
//! | [`health`] | whether a node's ledger can write |

pub mod admitted;
pub mod appending;
pub mod apply;
pub mod cached;
pub mod cached_scans;
pub mod cached_signatures;
pub mod change;
pub mod collecting;
pub mod command;
pub mod directory;
pub mod draining;
pub mod drills;
pub mod events;
pub mod fingerprint;
pub mod health;
pub mod jobs;
pub mod labels;
pub mod lease;
pub mod leaving;
pub mod level;
pub mod people;
pub mod policies;
pub mod precondition;
pub mod provider_tokens;
pub mod quotas;
pub mod ranges;
pub mod records;
pub mod returning;
pub mod scanners;
pub mod scanning;
pub mod sealing;
pub mod sign_due;
pub mod sign_log;
pub mod signatures;
pub mod stored;
pub mod told;
pub mod trash;
pub mod trimming;
pub mod trust;
pub mod upkeep;
