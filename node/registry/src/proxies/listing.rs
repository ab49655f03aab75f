//! Which tags an upstream's repository has: asked by the project's primary once for the whole mesh,
//! page by page, and remembered for as long as a resolved tag is.

use std::sync::Arc;

use ground::clock;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::ledger::records::{Look, Project};
use rules::proxies::tags::RecentAnswers;
use rules::wire::{Listing, questions};
use rules::words::names::{RepositoryName, UpstreamId};
use tracing::warn;
use upstream::{Upstream, UpstreamError};

use super::under_way::{Heard, UnderWay};
use super::{DENIED, PRIMARY, ProxyTerms, RETRY, Remembered, UPSTREAM, slow};
use crate::upstreams::Upstreams;
use crate::view::Records;
use crate::view::neighbours::Neighbours;

/// The maximum number of questions to upstreams at a time. They go on without their clients, who
/// can make up as many as they like (`?x=1`, `?x=2`).
const AT_A_TIME: usize = 256;
/// The maximum number of bytes of lists that are remembered.
const REMEMBERED: usize = 16 << 20;
/// What a list costs beside its tags.
const OVERHEAD: usize = 256;

/// A page of a list: of which registry, what that calls the repository, and the client's query.
type Question = (UpstreamId, String, String);

/// The lists of upstreams, as this node finds out.
pub struct Lists {
    neighbours: Arc<Neighbours>,
    records: Records,
    upstreams: Arc<Upstreams>,
    terms: ProxyTerms,
    tasks: Tasks,
    remembered: Remembered<RecentAnswers<Question, Listing>>,
    under_way: Mutex<UnderWay<Question, Listing>>,
}

impl Lists {
    /// Ready; nothing is asked of anyone yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        upstreams: Arc<Upstreams>,
        terms: ProxyTerms,
        tasks: Tasks,
    ) -> Arc<Self> {
        let remembered = Remembered::new(upstreams.clone(), RecentAnswers::new(REMEMBERED));
        Arc::new(Lists {
            records: neighbours.records.clone(),
            neighbours,
            upstreams,
            terms,
            tasks,
            remembered,
            under_way: Mutex::new(UnderWay::new(AT_A_TIME)),
        })
    }

    /// The page of the upstream's list that `query` asks for, from the project's primary. From here
    /// if the primary has no answer: it cannot be reached, or its build does not know the question.
    pub async fn tags(
        self: &Arc<Self>,
        project: &Project,
        repository: &RepositoryName,
        query: &str,
    ) -> Listing {
        let elsewhere = project.primary != self.neighbours.me
            && !self.neighbours.members.down().contains(&project.primary);
        if elsewhere {
            let ask = questions::Tags { repository: repository.clone(), query: query.to_owned() };
            if let Ok(listing) = self.neighbours.links.ask(project.primary, ask, PRIMARY).await {
                return listing;
            }
        }
        if !self.upstreams.allowed() {
            return Listing::Failed("the project's primary does not answer".into());
        }
        self.tags_here(repository, query).await
    }

    /// The same page, asked from here: one question to the upstream, however many want to know. A
    /// question that takes longer than clients wait goes on, for those who ask next.
    pub async fn tags_here(self: &Arc<Self>, repository: &RepositoryName, query: &str) -> Listing {
        let (question, upstream) = match self.question(repository, query) {
            Ok(Some(question)) => question,
            Ok(None) => return Listing::Missing,
            Err(error) => return listing(error),
        };
        if let Some(listing) = self.remembered.lock().get(clock::now(), &question) {
            return listing.clone();
        }
        let Some(mut answer) = self.answer_to(question, upstream) else {
            return Listing::Failed("many lists are being asked for; ask again".into());
        };
        match tokio::time::timeout(UPSTREAM, answer.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => answer.clone().unwrap_or(Listing::Missing),
            Ok(Err(_)) => Listing::Failed("the node is stopping".into()),
            Err(_) => listing(slow()),
        }
    }

    /// `None` for what the project's patterns leave out, and for projects that cache nothing.
    fn question(
        &self,
        repository: &RepositoryName,
        query: &str,
    ) -> Result<Option<(Question, Arc<Upstream>)>, UpstreamError> {
        let Some((upstream, there)) = self.upstreams.admitted(repository)? else {
            return Ok(None);
        };
        let project = self.records.view().and_then(|view| view.project(&repository.project()));
        let project = project.map_err(UpstreamError::bad)?;
        let id = project.and_then(|project| project.upstream);
        Ok(id.map(|id| ((id, there, query.to_owned()), upstream)))
    }

    /// Asks the upstream, if nobody does so already; `None` while as many are asked as may be.
    fn answer_to(
        self: &Arc<Self>,
        question: Question,
        upstream: Arc<Upstream>,
    ) -> Option<Heard<Listing>> {
        let (heard, unasked) = self.under_way.lock().join(&question)?;
        let Some(answer) = unasked else { return Some(heard) };
        let lists = self.clone();
        self.tasks.spawn("proxy.tags", async move {
            let (_, there, query) = &question;
            let told = upstream.tags(there, query).await.map_or_else(listing, Listing::Page);
            if let Listing::Denied(error) | Listing::Failed(error) = &told {
                let registry = upstream.endpoint().authority();
                warn!(registry, repository = there, error, "the upstream gave no list of tags");
            }
            lists.remember(&question, &told);
            lists.under_way.lock().leave(&question);
            answer.send_replace(Some(told));
        });
        Some(heard)
    }

    fn remember(&self, question: &Question, listing: &Listing) {
        let (size, time) = match listing {
            Listing::Page(page) => {
                let tags = page.tags.iter().map(|tag| tag.as_str().len() + size_of_val(tag));
                (tags.sum(), self.terms.fresh_for)
            }
            Listing::Missing | Listing::Denied(_) => (0, self.terms.missing_for),
            Listing::Failed(_) => (0, RETRY),
        };
        let size = OVERHEAD + question.1.len() + question.2.len() + size;
        let (now, question, listing) = (clock::now(), question.clone(), listing.clone());
        self.remembered.lock().remember(now, question, listing, size, time);
    }
}

/// What an upstream's error says of its list.
fn listing(error: UpstreamError) -> Listing {
    match error {
        UpstreamError::NotFound => Listing::Missing,
        UpstreamError::Denied(_) => Listing::Denied(format!("{error} ({DENIED})")),
        UpstreamError::Unusable(_) | UpstreamError::Refused(_) => {
            Listing::Denied(error.to_string())
        }
        error => Listing::Failed(error.to_string()),
    }
}
