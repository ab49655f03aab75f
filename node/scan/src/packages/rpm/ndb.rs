//! RPM's own database: slots of 16 bytes, each with the place of a head (rpm's
//! `lib/backend/ndb/rpmpkg.c`).

use std::borrow::Cow;

const PAGE: usize = 4096;
const SLOT: usize = 16;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The heads of a database. `None` if it is damaged.
pub(super) fn blobs(bytes: &[u8]) -> Option<Vec<Cow<'_, [u8]>>> {
    if bytes.get(..4)? != b"RpmP" || u32_at(bytes, 4)? != 0 {
        return None;
    }
    let pages = u32_at(bytes, 12)? as usize;
    let slots = bytes.get(..pages.checked_mul(PAGE)?)?;
    let mut blobs = Vec::new();
    // the first two places are the database's own head
    for slot in slots.chunks_exact(SLOT).skip(2) {
        if &slot[..4] != b"Slot" {
            return None;
        }
        let (package, block) = (u32_at(slot, 4)?, u32_at(slot, 8)? as usize);
        if package == 0 {
            continue;
        }
        let at = block.checked_mul(SLOT)?;
        let head = bytes.get(at..at.checked_add(SLOT)?)?;
        if &head[..4] != b"BlbS" || u32_at(head, 4)? != package {
            return None;
        }
        let length = u32_at(head, 12)? as usize;
        blobs.push(Cow::Borrowed(bytes.get(at + SLOT..)?.get(..length)?));
    }
    Some(blobs)
}
