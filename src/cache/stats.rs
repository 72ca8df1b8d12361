//! What a cache counts.

use super::index::Scope;
use super::policy::Uncacheable;
use crate::telemetry::metrics::Counter;

crate::stats! {
    /// `http.STAT_PREFIX.cache.*`
    pub struct CacheStats {
        /// Requests answered with what was stored.
        counter hit,
        /// Of those, with what was stale, while it was validated.
        counter stale_while_revalidate,
        /// Requests for what was not stored.
        counter miss,
        /// Of those, answered with what the shared tier had.
        counter shared_hit,
        /// Requests answered with what another request fetched.
        counter coalesced,
        /// Requests for what had to be validated.
        counter stale,
        /// Stale responses used since the origin answered with an error.
        counter stale_if_error,
        /// Validations after which what was stored was used.
        counter revalidated,
        /// Validations that no request waited for.
        counter background,
        /// Requests that could not be answered from a cache.
        counter bypass,
        /// Responses stored.
        counter stored,
        /// Responses that were not stored, for any reason.
        counter uncacheable,
        /// For their status.
        counter uncacheable_status,
        /// For `no-store`.
        counter uncacheable_no_store,
        /// For `private`.
        counter uncacheable_private,
        /// Since their requests were authorized.
        counter uncacheable_authorization,
        /// For what they vary by.
        counter uncacheable_vary,
        /// For `Set-Cookie`.
        counter uncacheable_set_cookie,
        /// Since they are never fresh.
        counter uncacheable_no_lifetime,
        /// For their size, or since too much is being filled already.
        counter uncacheable_too_large,
        /// For the type of their bodies.
        counter uncacheable_content_type,
        /// For their requests' methods.
        counter uncacheable_method,
        /// Responses forgotten for the memory that they took.
        counter evicted_memory,
        /// Responses forgotten for their number.
        counter evicted_entries,
        /// Responses forgotten for the number of variants of their resource.
        counter evicted_variants,
        /// Responses forgotten since they could not be used any more.
        counter expired,
        /// URLs forgotten since a request changed them.
        counter invalidated,
        /// Purges of one URL.
        counter purge_url,
        /// Purges of a pattern.
        counter purge_pattern,
        /// Purges of a tag.
        counter purge_tag,
        /// Purges of everything.
        counter purge_everything,
        /// Responses that purges hit, but for patterns that came with requests or from the fleet.
        counter purged,
        /// Responses fetched before anybody asked.
        counter warmed,
        /// Attempts at that of which nothing came.
        counter warm_failed,
        /// Encoded forms made.
        counter encoded,
        /// Responses that are being fetched from the origin.
        gauge fetching,
        /// URLs stored.
        gauge entries,
        /// The memory that all of it takes.
        gauge bytes,
        /// Of that, identity bodies and heads.
        gauge bytes_identity,
        /// Of that, bodies in gzip that were made here.
        gauge bytes_gzip,
        /// Of that, copies of large bodies that are asked for often, in files of memory.
        gauge bytes_copies,
        /// Bytes of responses on their way into the store.
        gauge bytes_filling,
    }
}

impl CacheStats {
    /// A response was not stored.
    pub fn refuse(&self, why: Uncacheable) {
        self.uncacheable.inc();
        self.refused(why).inc();
    }

    fn refused(&self, why: Uncacheable) -> &Counter {
        match why {
            Uncacheable::Status => &self.uncacheable_status,
            Uncacheable::NoStore => &self.uncacheable_no_store,
            Uncacheable::Private => &self.uncacheable_private,
            Uncacheable::Authorization => &self.uncacheable_authorization,
            Uncacheable::Vary => &self.uncacheable_vary,
            Uncacheable::SetCookie => &self.uncacheable_set_cookie,
            Uncacheable::NoLifetime => &self.uncacheable_no_lifetime,
            Uncacheable::TooLarge => &self.uncacheable_too_large,
            Uncacheable::ContentType => &self.uncacheable_content_type,
            Uncacheable::Method => &self.uncacheable_method,
        }
    }

    pub(super) fn purge(&self, scope: &Scope, hit: Option<u64>) {
        let kind = match scope {
            Scope::Everything => &self.purge_everything,
            Scope::Url(..) => &self.purge_url,
            Scope::Pattern(_) => &self.purge_pattern,
            Scope::Tag(_) => &self.purge_tag,
        };
        kind.inc();
        self.purged.add(hit.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::otel::Otel;
    use crate::telemetry::{Scope as StatScope, Telemetry};

    #[test]
    fn the_documented_metrics_are_these_cells() {
        let telemetry = Telemetry::default();
        let stats = telemetry.group::<CacheStats>(StatScope::http("in").part("cache"));
        stats.hit.add(3);
        stats.evicted_entries.inc();
        stats.bytes.set(77);
        let text = Otel::new(&telemetry, ()).render().unwrap();
        for line in [
            r#"gateway_cache_hits_total{stat_prefix="in"} 3"#,
            r#"gateway_cache_misses_total{stat_prefix="in"} 0"#,
            r#"gateway_cache_size{stat_prefix="in"} 77"#,
            r#"gateway_cache_evictions_total{reason="entries",stat_prefix="in"} 1"#,
            r#"gateway_cache_invalidations_total{kind="tag",stat_prefix="in"} 0"#,
            r#"gateway_cache_requests_total{stat_prefix="in",verdict="hit"} 3"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        // A cell that is named there and not here would be missing.
        let shown = text.lines().filter(|line| line.starts_with("gateway_cache_"));
        assert_eq!(shown.count(), 38, "{text}");
    }
}
