//! An edge's records. The edge asks a replica, the nearest first, and keeps the answers.
//!
//! A reader runs on what is kept. Everything that it misses is asked for in one question, and the
//! reader runs again, until it misses nothing. So the readers of a replica work unchanged at an
//! edge, and a pull costs one round trip for each step that depends on another.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ground::clock;
use ground::opening::Opening;
use ground::supervise::Tasks;
use mesh::links::Links;
use mesh::members::{Members, kept_seeds};
use parking_lot::Mutex;
use rules::edges::{EdgeTerms, Known, Remembered, Use, until_told, usable};
use rules::ledger::admitted::Stamp;
use rules::ledger::cached::Owner;
use rules::ledger::people::LookForPeople;
use rules::ledger::records::{
    Look, NodeRecord, Pair, Project, ReadRecords, RecordError, Role, key,
};
use rules::ledger::scanning;
use rules::people::access::Scope;
use rules::wire::questions::{self, Question};
use rules::wire::{self, Credentials, Found, Lookup, Query, Verdict};
use rules::words::moment::{Moment, Timestamp};
use rules::words::names::{NodeId, Region};
use rules::words::secret::Secret;
use tracing::{debug, info, warn};

mod changes;
mod tables;

use self::changes::{Changes, TOGETHER};
use self::tables::{groups, mesh, people, scans, small, trust, whole};
use super::found::{MOST, pairs_of, value_of};
use super::kept::KeptAnswers;
use super::{Freshness, ReadError};

/// How long one replica may take (it waits up to a second for a leader that has just died, and then
/// answers with what it has), and how long the search for a replica may take. Both are within the
/// time that a client waits.
const ASK: Duration = Duration::from_millis(1500);
const SEEK: Duration = Duration::from_millis(2700);
/// After no replica could be reached, only the task that follows the small tables asks for this
/// long. Readers use what is kept at once.
const GIVE_UP: Duration = Duration::from_secs(6);
/// A replica that did not answer is asked after the others for this long: one that has died is not
/// known to be down at once, and every question would wait for it first.
const SILENT: Duration = Duration::from_secs(5);
/// The time between two looks at the small tables: nodes, projects, upstreams.
const FOLLOW: Duration = Duration::from_secs(2);
/// The maximum number of dependent steps of a reader. Our own readers have at most three.
const STEPS: usize = 8;
/// The maximum number of verdicts on credentials that are kept.
const VERDICTS: usize = 4096;

/// The records as an edge reads them.
pub struct EdgeRecords {
    me: NodeId,
    region: Region,
    links: Arc<Links>,
    members: Arc<Members>,
    terms: EdgeTerms,
    kept: KeptAnswers,
    version: AtomicU64,
    seeds: Vec<NodeId>,
    heard: Mutex<Option<Moment>>,
    unreachable_until: Mutex<Moment>,
    verdicts: Mutex<HashMap<blake3::Hash, (Moment, Option<Verdict>)>>,
    people: Mutex<People>,
    /// What this edge has heard of changes in what it keeps.
    changes: Changes,
    /// Replicas that did not answer lately, and when.
    silent: Mutex<HashMap<NodeId, Moment>>,
}

/// What this edge knows of changes of people's records.
struct People {
    /// How often they were changed, when a replica said so last.
    version: u64,
    /// When this edge heard of that version first. What was kept of people before may be wrong.
    since: (Timestamp, Moment),
    /// When this edge last asked for a version that a replica then told.
    heard: Option<(Timestamp, Moment)>,
}

/// What `status` shows about an edge.
#[derive(Clone, Copy, Debug)]
pub struct EdgeStanding {
    /// How long ago a replica answered; `None` if none has since the start.
    pub heard: Option<Duration>,
    /// The number of answers that are kept.
    pub kept: u64,
}

impl EdgeRecords {
    /// Whether what is kept takes no write, not even an empty one.
    pub async fn is_broken(&self) -> bool {
        self.kept.is_broken().await
    }

    /// Opens what was kept in `data_dir`, and starts to follow the small tables.
    pub fn open(
        data_dir: &Path,
        region: Region,
        links: Arc<Links>,
        members: Arc<Members>,
        terms: EdgeTerms,
        opening: &Opening,
        tasks: &Tasks,
    ) -> std::io::Result<Arc<Self>> {
        opening.begin("what this edge has kept (kept.redb)");
        let kept = KeptAnswers::open(&data_dir.join("kept.redb"), opening)?;
        let changes = Changes::open(&kept, told_of_changes(&kept));
        let edge = Arc::new(EdgeRecords {
            me: links.me(),
            region,
            links,
            members,
            terms,
            kept,
            version: AtomicU64::new(1),
            seeds: kept_seeds(data_dir).into_iter().map(|(id, _)| id).collect(),
            heard: Mutex::new(None),
            unreachable_until: Mutex::new(Moment::from_micros(0)),
            verdicts: Mutex::default(),
            silent: Mutex::default(),
            people: Mutex::new(People {
                version: 0,
                since: (Timestamp(0), Moment::from_micros(0)),
                heard: None,
            }),
            changes,
        });
        for node in edge.view().nodes().unwrap_or_default() {
            edge.links.know(node.id, node.address);
        }
        tasks.spawn("edge.follow", follow(edge.clone()));
        tasks.spawn("edge.prune", prune(edge.clone()));
        Ok(edge)
    }

    /// The records that are kept, however old.
    pub fn view(self: &Arc<Self>) -> KeptView {
        KeptView(self.clone())
    }

    /// Grows with every new answer about a whole table.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// For `status`.
    pub fn standing(&self) -> EdgeStanding {
        EdgeStanding { heard: self.heard_ago(), kept: self.kept.count() }
    }

    /// How long ago a replica answered; `None` if none has since the start.
    pub fn heard_ago(&self) -> Option<Duration> {
        let heard = *self.heard.lock();
        heard.map(|heard| clock::now().since(heard))
    }

    /// Runs `read` on what is kept, and on replicas' answers for what is not.
    pub async fn read<T>(
        &self,
        read: impl Fn(&dyn ReadRecords) -> Result<T, RecordError>,
    ) -> Result<(T, Freshness), ReadError> {
        let mut known = BTreeMap::new();
        let mut sure = true;
        let mut alone = false;
        for _ in 0..STEPS {
            let reading = Reading {
                edge: self,
                known: &known,
                now: clock::timestamp(),
                alone,
                wanted: RefCell::default(),
                aged: Cell::new(None),
                superseded: Cell::new(false),
                lacking: Cell::new(false),
            };
            let value = read(&reading);
            let wanted = reading.wanted.take();
            if alone {
                metrics::counter!("atoll_edge_reads_alone_total").increment(1);
                if reading.lacking.get() {
                    return Err(ReadError::CutOff);
                }
                let aged =
                    if reading.superseded.get() { Freshness::Superseded } else { Freshness::Aged };
                let freshness = reading.aged.get().map_or(Freshness::Fresh, aged);
                return Ok((value?, freshness));
            }
            if wanted.is_empty() {
                return Ok((value?, if sure { Freshness::Fresh } else { Freshness::Stale }));
            }
            let asked =
                if self.cut_off() { None } else { self.ask(wanted.into_iter().collect()).await };
            match asked {
                Some((answers, fresh)) => {
                    sure &= fresh;
                    known.extend(answers);
                }
                None => alone = true,
            }
        }
        Err(RecordError("a reader went on asking for more".into()).into())
    }

    /// The kept answer to `query`, however old, and when it was right. A record of a small table
    /// may also be known from the table's own answer; the later of the two counts.
    fn kept_of(&self, query: &Query) -> Option<(Timestamp, Arc<Found>)> {
        let own = self.kept.get(query).map(|answer| (answer.at, answer.found));
        let Query::Key(key) = query else { return own };
        let in_table =
            |t: &Query| matches!(t, Query::Scan { prefix, .. } if key.starts_with(prefix));
        let table = small().into_iter().find(in_table).and_then(|table| self.kept.get(&table));
        let of_table = table.and_then(|answer| {
            let Found::Pairs(pairs) = &*answer.found else { return None };
            let value = pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone());
            let whole = (pairs.len() as u64) < MOST;
            (value.is_some() || whole).then(|| (answer.at, Arc::new(Found::Value(value))))
        });
        own.into_iter().chain(of_table).max_by_key(|(at, _)| *at)
    }

    /// Asks the nearest replica that answers, and keeps the answer. `None` if no replica answers;
    /// this edge then takes itself for cut off for a while.
    async fn ask(&self, queries: Vec<Query>) -> Option<(Vec<(Query, Arc<Found>)>, bool)> {
        let answer = self.ask_quietly(queries).await;
        if answer.is_none() {
            *self.unreachable_until.lock() = clock::now() + GIVE_UP;
        }
        answer
    }

    /// As [`EdgeRecords::ask`], but that there is no answer means nothing else.
    async fn ask_quietly(&self, queries: Vec<Query>) -> Option<(Vec<(Query, Arc<Found>)>, bool)> {
        let mut all = Vec::new();
        let mut sure = true;
        for queries in queries.chunks(TOGETHER) {
            let kept: Vec<Option<Arc<Found>>> =
                queries.iter().map(|q| self.kept.get(q).map(|k| k.found)).collect();
            let lookups = queries.iter().zip(&kept).map(|(query, kept)| Lookup {
                query: query.clone(),
                unless: kept.as_ref().map(|found| found.print()),
            });
            // and how much the replica knows of changes, if it may be behind this edge
            let counted = queries.iter().any(changes::is_of_verdicts);
            let number = Lookup { query: whole(scanning::key::verdicts()), unless: None };
            let lookups = lookups.chain(counted.then_some(number));
            let at = clock::timestamp();
            let (mut answers, fresh) =
                self.first_answer(questions::Look { lookups: lookups.collect() }).await?;
            let number = counted.then(|| answers.pop()).flatten();
            if answers.len() != queries.len() {
                return None;
            }
            sure &= fresh;
            let first = all.len();
            for ((query, answer), kept) in queries.iter().zip(answers).zip(kept) {
                let news = answer != Found::Same;
                let found = match (answer, kept) {
                    (Found::Same, Some(kept)) => kept,
                    (Found::Same, None) => return None,
                    (new, _) => Arc::new(new),
                };
                if fresh {
                    self.kept.put(query.clone(), at, Some(found.clone()));
                    if news && matches!(query, Query::Scan { .. }) {
                        self.version.fetch_add(1, Ordering::SeqCst);
                    }
                }
                all.push((query.clone(), found));
            }
            if let Some(number) = number.filter(|_| !fresh) {
                let number = number_in(&pairs_of(&number));
                self.changes.prefer_kept(&self.kept, number, &mut all[first..]);
            }
        }
        Some((all, sure))
    }

    fn cut_off(&self) -> bool {
        clock::now() < *self.unreachable_until.lock()
    }

    /// The replicas that may answer: those that answered last, the nearest first, before others.
    fn replicas(&self) -> Vec<NodeId> {
        let down = self.members.down();
        let nodes: Vec<NodeRecord> = Query::nodes().pairs(&self.kept);
        let now = clock::now();
        let mut silent = self.silent.lock();
        silent.retain(|_, since| now.since(*since) < SILENT);
        let mut replicas: Vec<(bool, bool, Duration, NodeId)> = nodes
            .iter()
            .filter(|n| n.role == Role::Replica && !down.contains(&n.id))
            .map(|n| {
                (
                    silent.contains_key(&n.id),
                    n.region != self.region,
                    self.links.round_trip(n.id).unwrap_or(Duration::MAX),
                    n.id,
                )
            })
            .collect();
        drop(silent);
        replicas.sort();
        let mut ids: Vec<NodeId> = replicas.into_iter().map(|(_, _, _, id)| id).collect();
        if nodes.is_empty() {
            // just joined: the nodes that the token named, in any order; edges among them refuse at
            // once
            ids = self
                .seeds
                .iter()
                .copied()
                .filter(|id| *id != self.me && !down.contains(id))
                .collect();
            ids.sort_by_cached_key(|_| rand::random::<u32>());
        }
        ids
    }

    async fn ask_replicas<Q: Question + Clone>(&self, question: Q) -> Option<Q::Answer> {
        let answer = self.first_answer(question).await;
        if answer.is_none() {
            *self.unreachable_until.lock() = clock::now() + GIVE_UP;
        }
        answer
    }

    /// The answer of the first replica that gives one. That there is none does not mean that this
    /// edge is cut off: a replica takes its time for passwords, and refuses to check many.
    async fn first_answer<Q: Question + Clone>(&self, question: Q) -> Option<Q::Answer> {
        let end = clock::now() + SEEK;
        for replica in self.replicas() {
            if clock::now() >= end {
                break;
            }
            match self.links.ask(replica, question.clone(), ASK).await {
                Ok(answer) => {
                    self.silent.lock().remove(&replica);
                    *self.heard.lock() = Some(clock::now());
                    *self.unreachable_until.lock() = Moment::from_micros(0);
                    return Some(answer);
                }
                Err(error) => {
                    debug!(%replica, %error, "a replica did not answer");
                    self.silent.lock().insert(replica, clock::now());
                }
            }
        }
        None
    }

    /// Whether these credentials are no guess: they were right when they were checked last, or a
    /// verdict on them is kept, so that no replica is asked.
    pub fn knows(&self, credentials: &Credentials) -> bool {
        let proof = blake3::hash(&wire::encode(credentials));
        let kept = self.verdicts.lock().get(&proof).cloned();
        kept.is_some_and(|(at, verdict)| verdict.is_some() || self.remembered(at))
    }

    /// The identity behind these credentials. The verdict of the mesh may be as old as
    /// `edge.access_age`. When this edge is cut off, it counts for as long after a replica said last
    /// that nothing of people has changed. Verdicts are kept in memory only.
    pub async fn identify(&self, credentials: Credentials) -> Result<Option<Verdict>, ReadError> {
        let proof = blake3::hash(&wire::encode(&credentials));
        let kept = self.verdicts.lock().get(&proof).cloned();
        if let Some((at, verdict)) = &kept
            && self.remembered(*at)
        {
            return Ok(verdict.clone());
        }
        let at = clock::now();
        let answer = if self.cut_off() {
            None
        } else {
            self.first_answer(questions::Identify { credentials }).await
        };
        match (answer, kept) {
            (Some(verdict), _) => {
                self.keep_verdict(proof, at, verdict.clone());
                Ok(verdict)
            }
            (None, Some((at, verdict))) if self.terms.believes(&self.known(at)) => Ok(verdict),
            _ => Err(ReadError::CutOff),
        }
    }

    /// Whether a verdict of this moment counts without asking: it is not too old, and people's
    /// records have not changed since.
    fn remembered(&self, at: Moment) -> bool {
        let known = self.known(at);
        known.asked.is_some_and(|asked| asked <= self.terms.access_age) && !known.superseded
    }

    /// How sure something about people is that was asked for at this moment.
    fn known(&self, at: Moment) -> Known {
        let (now, people) = (clock::now(), self.people.lock());
        Known {
            asked: Some(now.since(at)),
            heard: people.heard.map(|(_, heard)| now.since(heard)),
            superseded: at <= people.since.1,
        }
    }

    /// Whether something counts that was said of people when [`EdgeRecords::people_version`] was
    /// `version`: nothing has changed since, as far as replicas have said within
    /// `edge.access_age`.
    pub fn believes(&self, version: u64) -> bool {
        let (now, people) = (clock::now(), self.people.lock());
        let heard = people.heard.map(|(_, heard)| now.since(heard));
        people.version == version && heard.is_some_and(|heard| heard <= self.terms.access_age)
    }

    fn keep_verdict(&self, proof: blake3::Hash, at: Moment, verdict: Option<Verdict>) {
        let mut verdicts = self.verdicts.lock();
        if verdicts.len() >= VERDICTS {
            // wrong guesses must not displace verdicts on right credentials
            verdicts.retain(|_, (_, verdict)| verdict.is_some());
        }
        if verdicts.len() >= VERDICTS {
            verdicts.clear();
        }
        verdicts.insert(proof, (at, verdict));
    }

    /// A token that a replica signs for the user with this name and password; `None` if no replica
    /// does so now. What it grants is kept like a verdict.
    pub async fn token(
        &self,
        name: String,
        password: Secret,
        scopes: Vec<Scope>,
    ) -> Option<Secret> {
        if self.cut_off() {
            return None;
        }
        let at = clock::now();
        let (token, verdict) =
            self.first_answer(questions::Token { name, password, scopes }).await??;
        let proof = blake3::hash(&wire::encode(&Credentials::Token(token.clone())));
        self.keep_verdict(proof, at, Some(verdict));
        Some(token)
    }

    /// How often people's records were changed, as far as this edge has heard.
    pub fn people_version(&self) -> u64 {
        self.people.lock().version
    }

    /// A replica was asked at `asked` how often people's records were changed, and said so. If they
    /// have changed, what was kept of them before is asked for again.
    fn handle_people(self: &Arc<Self>, asked: (Timestamp, Moment)) {
        let version = self.view().people_version().unwrap_or_default();
        let mut people = self.people.lock();
        if people.version != version {
            people.version = version;
            people.since = (clock::timestamp(), clock::now());
        }
        // a mesh that counts no changes yet does not say that there was none
        people.heard = (version != 0).then_some(asked);
    }

    /// A replica that was asked at `asked` has said how often what decides about images was changed.
    /// What has changed, and what is gone, is read again.
    async fn handle_changes(&self, asked: Moment) {
        let number = told_of_changes(&self.kept);
        let (verdicts, gone) = self.changes.heard();
        let changes = self.first_answer(questions::Changed { verdicts, gone }).await;
        self.changes.hear(&self.kept, number, changes, asked).await;
        let ask = async |queries| matches!(self.ask_quietly(queries).await, Some((_, true)));
        self.changes.read_again(&self.kept, ask).await;
    }

    /// How long ago a replica that was sure told this edge of changes, to ten seconds if that was before a
    /// restart; `None` if none ever has, or nobody knows when.
    pub fn told_ago(&self) -> Option<Duration> {
        let told = self.kept.get(&whole(scanning::key::verdicts()));
        let kept = told.and_then(|answer| clock::timestamp().since(answer.at));
        self.changes.age().or(kept)
    }

    /// The state of what decides about pulls; `None` while this edge may not hear of changes.
    pub fn stamp(&self) -> Option<Stamp> {
        self.changes.stamp()
    }

    /// Whether an answer to `query` of this time may be about an earlier project of the same name:
    /// whoever made the name anew must not see what that had.
    fn is_of_earlier_project(&self, query: &Query, at: Timestamp) -> bool {
        let (Query::Key(place) | Query::Scan { prefix: place, .. }) = query;
        let Owner::Project(name) = Owner::of(place) else { return false };
        let kept = self.kept_of(&Query::Key(key::project(&name)));
        let project = kept.and_then(|(_, found)| value_of(&found));
        let project =
            project.and_then(|bytes| rules::ledger::records::decode::<Project>(&bytes).ok());
        project.is_some_and(|project| at < project.created)
    }

    /// How sure an answer to `query` of this time is, if it is about people.
    fn known_of_people(&self, query: &Query, at: Timestamp, now: Timestamp) -> Option<Known> {
        let (Query::Key(place) | Query::Scan { prefix: place, .. }) = query;
        key::is_of_people(place).then(|| {
            let people = self.people.lock();
            Known {
                asked: now.since(at),
                heard: people.heard.and_then(|(heard, _)| now.since(heard)),
                superseded: at <= people.since.0,
            }
        })
    }

    /// Tells the mesh this edge's new record.
    pub async fn introduce(&self, record: NodeRecord) -> bool {
        self.ask_replicas(questions::Introduce { record }).await.is_some()
    }
}

/// Decodes the pairs of a kept scan.
trait Scanned {
    fn nodes() -> Query;
    fn pairs<T: serde::de::DeserializeOwned>(&self, kept: &KeptAnswers) -> Vec<T>;
}

impl Scanned for Query {
    fn nodes() -> Query {
        whole(key::nodes())
    }

    fn pairs<T: serde::de::DeserializeOwned>(&self, kept: &KeptAnswers) -> Vec<T> {
        let pairs = kept.get(self).map(|answer| pairs_of(&answer.found)).unwrap_or_default();
        pairs.iter().filter_map(|(_, value)| rules::ledger::records::decode(value).ok()).collect()
    }
}

/// How often what decides about images was changed, as a replica told it last.
fn told_of_changes(kept: &KeptAnswers) -> u64 {
    let told = kept.get(&whole(scanning::key::verdicts()));
    number_in(&told.map(|answer| pairs_of(&answer.found)).unwrap_or_default())
}

/// The number in the table of changes.
fn number_in(table: &[Pair]) -> u64 {
    let place = scanning::key::verdicts();
    let number = table.iter().find(|(key, _)| *key == place);
    number.and_then(|(_, value)| rules::ledger::records::decode(value).ok()).unwrap_or_default()
}

/// One run of a reader.
struct Reading<'a> {
    edge: &'a EdgeRecords,
    known: &'a BTreeMap<Query, Arc<Found>>,
    now: Timestamp,
    alone: bool,
    wanted: RefCell<BTreeSet<Query>>,
    aged: Cell<Option<Duration>>,
    superseded: Cell<bool>,
    lacking: Cell<bool>,
}

impl Reading<'_> {
    /// The answer to `query`, if there is one. Otherwise the query is noted as missing, and the
    /// result of this run does not count.
    fn find(&self, query: Query) -> Option<Arc<Found>> {
        if let Some(found) = self.known.get(&query) {
            return Some(found.clone());
        }
        let kept = self.edge.kept_of(&query);
        let kept = kept.filter(|(at, _)| !self.edge.is_of_earlier_project(&query, *at));
        if kept.is_none()
            && let Some(found) = until_told(&query)
        {
            return Some(Arc::new(found));
        }
        let known = kept.as_ref().map(|(at, found)| {
            let of_people = self.edge.known_of_people(&query, *at, self.now);
            let of_verdicts = self.edge.changes.known(&query, *at, self.now);
            Remembered {
                age: self.now.since(*at),
                something: **found != Found::Value(None),
                superseded: of_people.is_some_and(|known| known.superseded)
                    || of_verdicts.is_some_and(|known| known.superseded),
                of_people,
                of_verdicts,
            }
        });
        match usable(&query, known, self.alone, &self.edge.terms) {
            Use::Remembered => kept.map(|(_, found)| found),
            used @ (Use::Aged(age) | Use::Superseded(age)) => {
                self.superseded.set(self.superseded.get() || used == Use::Superseded(age));
                self.aged.set(Some(self.aged.get().map_or(age, |oldest| oldest.max(age))));
                kept.map(|(_, found)| found)
            }
            Use::Ask => {
                self.wanted.borrow_mut().insert(query);
                None
            }
            Use::CutOff => {
                self.lacking.set(true);
                None
            }
        }
    }
}

impl ReadRecords for Reading<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        Ok(self.find(Query::Key(key.to_vec())).and_then(|found| value_of(&found)))
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        let query = Query::scan(prefix, after, limit);
        Ok(self.find(query).map(|found| pairs_of(&found)).unwrap_or_default())
    }
}

/// The kept records. A record that was never asked for looks as if it did not exist.
pub struct KeptView(Arc<EdgeRecords>);

impl ReadRecords for KeptView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        Ok(self.0.kept_of(&Query::Key(key.to_vec())).and_then(|(_, found)| value_of(&found)))
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        let query = Query::scan(prefix, after, limit);
        Ok(self.0.kept.get(&query).map(|answer| pairs_of(&answer.found)).unwrap_or_default())
    }
}

/// Keeps the small tables up to date as long as the edge runs. This also notices when replicas can
/// be reached again.
async fn follow(edge: Arc<EdgeRecords>) {
    let mut alone = false;
    loop {
        let was_alone = alone;
        alone = edge.ask(mesh()).await.is_none();
        // these on their own, because a replica of an earlier build refuses them
        if !alone {
            edge.ask_quietly(trust()).await;
        }
        if !alone {
            edge.ask_quietly(groups()).await;
        }
        let asked = clock::now();
        if !alone && matches!(edge.ask_quietly(scans()).await, Some((_, true))) {
            edge.handle_changes(asked).await;
        }
        let asked = (clock::timestamp(), clock::now());
        if !alone && matches!(edge.ask_quietly(people()).await, Some((_, true))) {
            edge.handle_people(asked);
        }
        if alone != was_alone {
            if alone {
                warn!("no replica of the mesh can be reached: this edge serves what it has kept");
            } else {
                info!("a replica of the mesh can be reached again");
            }
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

async fn prune(edge: Arc<EdgeRecords>) {
    loop {
        tokio::time::sleep(Duration::from_secs(600)).await;
        let oldest = clock::timestamp().0.saturating_sub(edge.terms.alone_for.as_millis() as u64);
        if let Err(error) = edge.kept.prune(Timestamp(oldest)).await {
            warn!(%error, "what this edge kept too long ago could not be forgotten");
        }
    }
}
