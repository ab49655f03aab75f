//! x
pub(super) fn regions(_: &super::Wan, _: &std::path::Path, _: &mut crate::report::Report, _: &mut super::Found) -> anyhow::Result<()> { Ok(()) }
pub(super) fn fanout(_: &super::Wan, _: &std::path::Path, _: &mut crate::report::Report, _: &mut super::Found) -> anyhow::Result<()> { Ok(()) }
