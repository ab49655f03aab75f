//! Which tags an upstream's repository has: asked by the project's primary once for the whole mesh,
//! page by page, and remembered for as long as a resolved tag is.

use std::collections::HashMap;
use std::sync::Arc;

use ground::clock;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::ledger::records::{Look, Project};
use rules::proxies::tags::RecentAnswers;
use rules::wire::{Listing, questions};
use rules::words::names::{RepositoryName, UpstreamId};
use tokio::sync::watch;
use tracing::warn;
use upstream::{Upstream, UpstreamError};

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

/// The answer to a question that is under way; `None` until it is there.
type Heard = watch::Receiver<Option<Listing>>;

/// The questions that are under way, at most [`AT_A_TIME`].
#[derive(Default)]
struct UnderWay(HashMap<Question, Heard>);

impl UnderWay {
    /// Where the answer to `question` will be. With the end to put it into, if nobody asks yet: the
    /// caller has to. `None` while as many are asked as may be.
    fn join(
        &mut self,
        question: &Question,
    ) -> Option<(Heard, Option<watch::Sender<Option<Listing>>>)> {
        let known = self.0.get(question);
        // one that ended without an answer was cut off
        if let Some(heard) = known.filter(|heard| heard.has_changed().is_ok()) {
            return Some((heard.clone(), None));
        }
        if known.is_none() && self.0.len() >= AT_A_TIME {
            return None;
        }
        let (answer, heard) = watch::channel(None);
        self.0.insert(question.clone(), heard.clone());
        Some((heard, Some(answer)))
    }

    /// Nobody asks `question` any more.
    fn leave(&mut self, question: &Question) {
        self.0.remove(question);
    }
}

/// The lists of upstreams, as this node finds out.
pub struct Lists {
    neighbours: Arc<Neighbours>,
    records: Records,
    upstreams: Arc<Upstreams>,
    terms: ProxyTerms,
    tasks: Tasks,
    remembered: Remembered<RecentAnswers<Question, Listing>>,
    under_way: Mutex<UnderWay>,
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
            under_way: Mutex::default(),
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
    fn answer_to(self: &Arc<Self>, question: Question, upstream: Arc<Upstream>) -> Option<Heard> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_once_and_only_so_many_at_a_time() {
        let question = |n: usize| (UpstreamId(1), "team/app".to_owned(), format!("x={n}"));
        let mut under_way = UnderWay::default();
        let mut asked = Vec::new();
        for n in 0..AT_A_TIME {
            let (_, unasked) = under_way.join(&question(n)).expect("there is room");
            asked.push(unasked.expect("nobody asks it yet"));
        }
        assert!(under_way.join(&question(AT_A_TIME)).is_none(), "one too many");
        // those that are under way are joined, also now
        let (heard, unasked) = under_way.join(&question(7)).expect("it is under way");
        assert!(unasked.is_none(), "it is asked already");
        asked[7].send_replace(Some(Listing::Missing));
        assert!(matches!(*heard.borrow(), Some(Listing::Missing)));
        // whoever asked it is gone: the next one asks
        drop(asked.pop());
        let last = under_way.join(&question(AT_A_TIME - 1)).expect("it has its place");
        assert!(last.1.is_some(), "nobody asks it any more");
        assert!(under_way.join(&question(AT_A_TIME)).is_none(), "still one too many");
        under_way.leave(&question(0));
        assert!(under_way.join(&question(AT_A_TIME)).is_some(), "one place is free");
    }
}
