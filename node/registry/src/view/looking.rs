//! A replica's answers to edges: the present records without secrets, and what is cached of proxy
//! projects, wherever in the mesh.

use rules::edges::{may_look, told, withhold};
use rules::ledger::cached::{Origin, Owner};
use rules::ledger::records::{ReadRecords, encode, key};
use rules::wire::{Changes, Found, Lookup, MAX_QUESTIONS, Query};
use rules::words::digest::Digest;
use rules::words::names::Revision;
use serde_bytes::ByteBuf;

use super::caches::Caches;
use super::found::{MOST, find, pairs_of};
use super::{Freshness, Records};

/// Answers the `questions` of the edge with this name from one consistent view, and from the caches of
/// other nodes. The second value says whether the view is certainly up to date. What projects have
/// that the edge may not serve is left out. Fails for more than [`MAX_QUESTIONS`], and for tables
/// with secrets.
pub async fn look(
    records: &Records,
    caches: &Caches,
    edge: &str,
    questions: &[Lookup],
) -> Result<(Vec<Found>, bool), String> {
    if questions.len() > MAX_QUESTIONS {
        return Err(format!("more than {MAX_QUESTIONS} questions at once"));
    }
    if !questions.iter().all(|q| may_look(&q.query)) {
        return Err("an edge may not read those records".into());
    }
    let read =
        |records: &dyn ReadRecords| questions.iter().map(|q| find(records, &q.query)).collect();
    let (mut found, freshness): (Vec<Found>, Freshness) =
        records.read(read).await.map_err(|e| e.to_string())?;
    if caches.are_used() {
        for (question, found) in questions.iter().zip(&mut found) {
            complete(records, caches, questions, &question.query, found).await;
        }
    }
    for (question, found) in questions.iter().zip(&mut found) {
        keep_to_what_it_may_see(records, caches, edge, &question.query, found).await?;
    }
    for (found, question) in found.iter_mut().zip(questions) {
        if question.unless.is_some_and(|print| print == found.print()) {
            *found = Found::Same;
        }
    }
    Ok((found, freshness == Freshness::Fresh))
}

/// Tells the edge with this name which of the records that decide about pulls have changed since their
/// number was `verdicts`, and which tags and manifests are gone since the revision `gone`.
pub fn changes(
    records: &Records,
    edge: &str,
    verdicts: u64,
    gone: Revision,
) -> Result<Changes, String> {
    let ledger = records.ledger().ok_or("this node has no ledger")?;
    let (verdicts, gone) = (ledger.changed_verdicts(verdicts), ledger.gone(gone));
    let view = records.view().map_err(|e| e.to_string())?;
    told(&*view, edge, verdicts, gone).map_err(|e| e.to_string())
}

/// Leaves out what the edge may not see. A page that is shorter for that is filled up: a short page
/// means that the list ends there.
async fn keep_to_what_it_may_see(
    records: &Records,
    caches: &Caches,
    edge: &str,
    query: &Query,
    found: &mut Found,
) -> Result<(), String> {
    let withheld = |query: &Query, found: &mut Found| {
        let view = records.view().map_err(|e| e.to_string())?;
        withhold(&*view, edge, query, found).map_err(|e| e.to_string())
    };
    let (Query::Scan { prefix, limit, .. }, Found::Pairs(pairs)) = (query, &*found) else {
        return withheld(query, found);
    };
    let most = (*limit).min(MOST);
    let (mut more, mut last) =
        (pairs.len() as u64 >= most, pairs.last().map(|(place, _)| place.to_vec()));
    withheld(query, found)?;
    while let Found::Pairs(pairs) = &mut *found
        && more
        && (pairs.len() as u64) < most
        && let Some(after) = last.take()
    {
        let next = Query::Scan { prefix: prefix.clone(), after: Some(after), limit: most };
        let view = records.view().map_err(|e| e.to_string())?;
        let mut piece = find(&*view, &next).map_err(|e| e.to_string())?;
        drop(view);
        if caches.are_used() {
            complete(records, caches, &[], &next, &mut piece).await;
        }
        if let Found::Pairs(all) = &piece {
            more = all.len() as u64 >= most;
            last = all.last().map(|(place, _)| place.to_vec());
        }
        withheld(&next, &mut piece)?;
        if let Found::Pairs(seen) = piece {
            let room = usize::try_from(most).unwrap_or(usize::MAX) - pairs.len();
            pairs.extend(seen.into_iter().take(room));
        }
    }
    Ok(())
}

/// Completes what this node has found with what others have cached. What a tag named is asked of
/// others only along with a manifest of the repository: before that the upstream is asked, and its
/// answer counts.
async fn complete(
    records: &Records,
    caches: &Caches,
    questions: &[Lookup],
    query: &Query,
    found: &mut Found,
) {
    let place = match query {
        Query::Key(key) => key,
        Query::Scan { prefix, .. } => prefix,
    };
    let proxied = |project| {
        let origin = records.view().and_then(|view| Origin::of_project(&*view, project));
        origin.is_ok_and(|origin| origin.is_some())
    };
    let of_all = match Owner::of(place) {
        Owner::Project(project) if proxied(&project) => false,
        Owner::AllProjects => true,
        _ => return,
    };
    match (query, &*found) {
        (Query::Scan { prefix, after, limit }, Found::Pairs(_))
            if of_all || matches!(prefix.first(), Some(b't' | b'r' | b'y')) =>
        {
            let limit = usize::try_from((*limit).min(MOST)).unwrap_or(usize::MAX);
            let mine = pairs_of(found);
            let all = caches.everywhere(prefix, after.as_deref(), limit, mine).await;
            let pairs = all.into_iter().map(|(k, v)| (ByteBuf::from(k), ByteBuf::from(v)));
            *found = Found::Pairs(pairs.collect());
        }
        (Query::Key(key), Found::Value(None)) => {
            let Some((repository, rest)) = key::in_repository(key) else { return };
            let record = match key.first() {
                Some(b'm') => match Digest::from_key(rest) {
                    Ok(digest) => {
                        let manifest = caches.manifest(&repository, &digest, false).await;
                        manifest.and_then(|manifest| encode(&manifest).ok())
                    }
                    Err(_) => None,
                },
                Some(b'l') => match Digest::from_key(rest) {
                    Ok(digest) if caches.links(&repository, &digest).await => encode(&1u64).ok(),
                    _ => None,
                },
                Some(b't') => {
                    let manifests = key::manifests(&repository);
                    let along = questions.iter().any(
                        |q| matches!(&q.query, Query::Key(key) if key.starts_with(&manifests)),
                    );
                    let tag = std::str::from_utf8(rest).ok().and_then(|tag| tag.parse().ok());
                    match tag.filter(|_| along) {
                        Some(tag) => {
                            let tag = caches.tag(&repository, &tag).await;
                            tag.and_then(|tag| encode(&tag).ok())
                        }
                        None => None,
                    }
                }
                _ => None,
            };
            *found = Found::Value(record.map(ByteBuf::from));
        }
        _ => {}
    }
}
