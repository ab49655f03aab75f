//! What routes are about, as far as an edge answers other ones.

use super::{Route, Stored};

impl Route {
    /// Whether it lists or shows people, what they decided, or labels. An edge is told of people one
    /// by one, and of the rest nothing, and answers none of these.
    pub fn is_about_people(&self) -> bool {
        if let Route::Stored(_, stored) = self
            && stored.is_about_scans()
        {
            return true;
        }
        matches!(
            self,
            Route::Members(_)
                | Route::Member(..)
                | Route::Labels
                | Route::Label(_)
                | Route::Users
                | Route::CurrentUser
                | Route::UserSearch
                | Route::User(_)
                | Route::UserAdministers(_)
                | Route::UserPassword(_)
                | Route::UserCliSecret(_)
                | Route::Configurations
                | Route::OidcPing
                | Route::LdapPing
                | Route::LdapUserSearch
                | Route::LdapUserImport
                | Route::LdapGroupSearch
                | Route::Groups
                | Route::GroupSearch
                | Route::Group(_)
                | Route::Robots
                | Route::Robot(_)
                | Route::Trusts(_)
                | Route::Trust(..)
                | Route::AuditLogExts
                | Route::AuditLogs
                | Route::ProjectAuditLogExts(_)
                | Route::ProjectLogs(_)
                | Route::Stored(_, Stored::Summary)
                | Route::Policy(..)
                | Route::Retentions
                | Route::RetentionTemplates
                | Route::Scanning(_)
                | Route::Quotas
                | Route::Quota(_)
                | Route::Upkeep(_)
        )
    }

    /// Whether it is about background work, in which an edge has no part.
    pub fn is_about_jobs(&self) -> bool {
        matches!(
            self,
            Route::Preheats
                | Route::Preheat(_)
                | Route::Jobs
                | Route::Job(_)
                | Route::JobLog(_)
                | Route::JobStop(_)
                | Route::JobRetry(_)
                | Route::Schedules
                | Route::Schedule(..)
                | Route::Collection
        )
    }
}
