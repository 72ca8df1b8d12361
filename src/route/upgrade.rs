//! Which protocols requests of a route may change to (`RouteAction.upgrade_configs`).

use std::sync::Arc;

use crate::exchange::upgrade::Upgrade;

/// What a route says of one protocol, in place of what the connection manager does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRule {
    /// `websocket`, or `CONNECT`.
    pub(super) kind: Arc<str>,
    pub(super) is_enabled: bool,
    /// Tunnels are opened to the cluster's hosts themselves, which know nothing of HTTP:
    /// `connect_config`.
    pub(super) ends_here: bool,
}

impl UpgradeRule {
    /// Of these rules the one for a request.
    pub(super) fn of<'r>(rules: &'r [Self], upgrade: &Upgrade) -> Option<&'r Self> {
        rules.iter().find(|rule| upgrade.is(&rule.kind))
    }

    /// Whether requests may change to it.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Whether the hosts are the far end of the tunnel.
    pub fn ends_here(&self) -> bool {
        self.ends_here
    }
}
