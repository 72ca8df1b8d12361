//! `config.route.v3.RouteAction.RequestMirrorPolicy` to [`Mirror`].

use std::sync::Arc;

use super::{Shared, headers};
use crate::config::runtime::Fraction;
use crate::config::{Errors, OrFault};
use crate::proto::envoy::config::route::v3::route_action::RequestMirrorPolicy;
use crate::route::HostValue;
use crate::route::mirror::{Mirror, MirrorHost};

/// The mirrors of a level, or those of the level above if it has none.
pub(super) fn below(
    above: &[Arc<Mirror>],
    policies: Vec<RequestMirrorPolicy>,
    shared: &mut Shared<'_>,
) -> Result<Vec<Arc<Mirror>>, Errors> {
    if policies.is_empty() {
        return Ok(above.to_vec());
    }
    let mut errors = Errors::new();
    let mut mirrors = Vec::with_capacity(policies.len());
    for (i, policy) in policies.into_iter().enumerate() {
        let mirror = compile(policy, shared).index(i).at("request_mirror_policies");
        mirrors.extend(errors.take(mirror).map(Arc::new));
    }
    errors.finish().map(|()| mirrors)
}

fn compile(policy: RequestMirrorPolicy, shared: &mut Shared<'_>) -> Result<Mirror, Errors> {
    let RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction,
        // Requests are not traced, and so their copies are not either.
        trace_sampled: _,
        disable_shadow_host_suffix_append,
        request_headers_mutations,
        host_rewrite_literal,
    } = policy;
    let mut errors = Errors::new();
    let cluster = errors.take(shared.cluster_or_header(("cluster", &cluster), &cluster_header));
    let runtime = shared.cx.runtime;
    let share = runtime_fraction.map(|fraction| runtime.fraction(&fraction)).transpose();
    let share = errors.take(share.at("runtime_fraction")).flatten();
    let mutations = headers::mutations(&request_headers_mutations).at("request_headers_mutations");
    let mutations = errors.take(mutations).flatten();
    let host = match (host_rewrite_literal.is_empty(), disable_shadow_host_suffix_append) {
        (false, _) => errors
            .take(HostValue::try_new(&host_rewrite_literal).at("host_rewrite_literal"))
            .map(|host| MirrorHost::Literal(Box::new(host))),
        (true, true) => Some(MirrorHost::Keep),
        (true, false) => Some(MirrorHost::Shadow),
    };
    match (cluster, host) {
        (Some(cluster), Some(host)) if errors.is_empty() => {
            Ok(Mirror { cluster, share: share.unwrap_or(Fraction::ALL), host, mutations })
        }
        _ => Err(errors),
    }
}
