//! What control counts, under Envoy's names.

use std::sync::Arc;

use crate::telemetry::otel::ConfigStats;
use crate::telemetry::{Scope, Telemetry};

crate::stats! {
    /// `cluster_manager.`
    pub struct ClusterManagerStats {
        /// Clusters that came new.
        counter cluster_added,
        /// Clusters that came with other bytes.
        counter cluster_modified,
        /// Clusters that went.
        counter cluster_removed,
        /// Clusters in service.
        gauge active_clusters,
        /// Versions of clusters that wait for their endpoints.
        gauge warming_clusters,
    }
}

crate::stats! {
    /// `listener_manager.`
    pub struct ListenerManagerStats {
        /// Listeners that came new.
        counter listener_added,
        /// Listeners that came with other bytes.
        counter listener_modified,
        /// Listeners that went.
        counter listener_removed,
        /// Listeners refused because their address could not be bound.
        counter listener_create_failure,
        /// Listeners in service.
        gauge total_listeners_active,
        /// Versions of listeners that wait for their route tables or extensions.
        gauge total_listeners_warming,
    }
}

crate::stats! {
    /// `cluster_manager.cds.`, `listener_manager.lds.`, and each extension's.
    pub struct SubscriptionStats {
        /// Waits for an answer begun.
        counter update_attempt,
        /// Answers accepted whole.
        counter update_success,
        /// Answers of which something was rejected.
        counter update_rejected,
        /// Waits that the network ended.
        counter update_failure,
        /// First answers that did not come in time.
        counter init_fetch_timeout,
    }
}

crate::stats! {
    /// `extension_config_discovery.http_filter.NAME.`
    pub struct ExtensionStats {
        /// Configurations taken up, and removals.
        counter config_reload,
        /// Configurations refused, and first ones that did not come in time.
        counter config_fail,
        /// Listeners that came and could not use the configuration there was.
        counter config_conflict,
    }
}

crate::stats! {
    /// `http.STAT_PREFIX.vhds.TABLE.`
    pub struct VhdsStats {
        /// Virtual hosts taken up, and removals.
        counter config_reload,
        /// Answers without any virtual host.
        counter empty_update,
        /// Waits for an answer begun.
        counter update_attempt,
        /// Answers accepted whole.
        counter update_success,
        /// Answers of which something was rejected.
        counter update_rejected,
        /// First answers that did not come in time.
        counter init_fetch_timeout,
    }
}

crate::stats! {
    /// `control_plane.`
    pub struct ControlPlaneStats {
        /// 1 while a stream to a management server is open.
        gauge connected_state,
    }
}

crate::stats! {
    /// `nuncio.`, what Envoy has no name for.
    pub struct OwnStats {
        /// Fields received that this program does not know, and so does not honour.
        counter config_fields_ignored,
        /// Age in seconds of the file the configuration in service was read from; 0 when it is
        /// the management server's.
        gauge snapshot_age_seconds,
        /// Files of last good configuration written.
        counter snapshot_written,
        /// Files of last good configuration that could not be written.
        counter snapshot_write_failure,
    }
}

/// All of them.
#[derive(Debug, Clone)]
pub(super) struct Stats {
    pub(super) clusters: Arc<ClusterManagerStats>,
    pub(super) listeners: Arc<ListenerManagerStats>,
    pub(super) cds: Arc<SubscriptionStats>,
    pub(super) lds: Arc<SubscriptionStats>,
    pub(super) control_plane: Arc<ControlPlaneStats>,
    pub(super) own: Arc<OwnStats>,
    pub(super) config: Arc<ConfigStats>,
}

impl Stats {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        Self {
            clusters: telemetry.group(Scope::global("cluster_manager")),
            listeners: telemetry.group(Scope::global("listener_manager")),
            cds: telemetry.group(Scope::global("cluster_manager").part("cds")),
            lds: telemetry.group(Scope::global("listener_manager").part("lds")),
            control_plane: telemetry.group(Scope::global("control_plane")),
            own: telemetry.group(Scope::global("nuncio")),
            config: telemetry.group(ConfigStats::scope()),
        }
    }
}
