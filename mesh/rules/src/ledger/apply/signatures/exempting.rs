//! Images that are served without signatures for a while because somebody has ordered it. What an
//! exempted index lists is served, too.

use super::{count_change, disinherit, inherit, keep};
use crate::ledger::command::Outcome;
use crate::ledger::level::Level;
use crate::ledger::records::{Look, RecordError, WriteRecords};
use crate::ledger::signatures::{
    LookForSignatures, MOST_CHILDREN, SignatureChange, is_short, may_exempt,
};
use crate::policies::signatures::{Evidence, Exemption, SignatureRecord};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::RepositoryName;

/// An order to serve an image without signatures, or to end that.
pub(in super::super) struct Order<'a> {
    /// The repository.
    pub(in super::super) repository: &'a RepositoryName,
    /// The image.
    pub(in super::super) digest: &'a Digest,
    children: &'a [Digest],
    exemption: Option<&'a Exemption>,
}

impl<'a> Order<'a> {
    /// The order in a change, if it is one.
    pub(in super::super) fn of(change: &'a SignatureChange) -> Option<Self> {
        match change {
            SignatureChange::Exempt { repository, digest, exemption } => {
                Some(Order { repository, digest, children: &[], exemption: exemption.as_ref() })
            }
            SignatureChange::ExemptIndex { repository, digest, children, exemption } => {
                Some(Order { repository, digest, children, exemption: Some(exemption) })
            }
            _ => None,
        }
    }

    /// What is known of the image then, for the caller to keep; or why the order is refused.
    pub(in super::super) fn carry_out<R: WriteRecords>(
        &self,
        records: &mut R,
        at: Timestamp,
    ) -> Result<Result<SignatureRecord, Outcome>, RecordError> {
        let Order { repository, digest, children, exemption } = *self;
        let mut known = records.signatures_of(repository, digest)?;
        if let Some(refused) = self.refused(at, &known) {
            return Ok(Err(refused));
        }
        known.exempt = exemption.cloned();
        if !children.is_empty() {
            inherit(records, repository, digest, children)?;
            known.children = children.to_vec();
        }
        let is_signed = known.evidence.iter().any(Evidence::is_known);
        if exemption.is_none() && !is_signed && records.level()? >= Level::CACHED_SIGNATURES {
            disinherit(records, repository, digest, &known.children)?;
            if known.evidence.is_empty() {
                known.children.clear();
            }
        }
        Ok(Ok(known))
    }

    fn refused(&self, at: Timestamp, known: &SignatureRecord) -> Option<Outcome> {
        let refused = |why: &str| Some(Outcome::Refused(why.to_owned()));
        match self.exemption {
            None if known.exempt.is_none() => Some(Outcome::NotFound),
            None => None,
            Some(_) if self.children.len() > MOST_CHILDREN => refused("too many manifests"),
            Some(one) if !is_short(&one.why) => {
                refused("an exemption needs a reason of at most 512 bytes")
            }
            Some(one) if !may_exempt(one.until, at) => {
                refused("an exemption lasts at most 90 days from now")
            }
            Some(_) => None,
        }
    }
}

/// Exempts an image of a project that caches no registry, or ends that.
pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &SignatureChange,
) -> Result<Outcome, RecordError> {
    let Some(order) = Order::of(change) else { return Ok(Outcome::NotFound) };
    if records.level()? < change.level() {
        return Ok(Outcome::Refused("no index is exempted at this feature level".into()));
    }
    if !records.has_manifest(order.repository, order.digest)? {
        return Ok(Outcome::NotFound);
    }
    match order.carry_out(records, at)? {
        Err(refused) => Ok(refused),
        Ok(known) => {
            keep(records, order.repository, order.digest, &known)?;
            count_change(records)?;
            Ok(Outcome::Done)
        }
    }
}
