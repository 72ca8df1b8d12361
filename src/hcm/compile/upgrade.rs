//! `HttpConnectionManager.upgrade_configs` to [`Upgrades`].

use crate::config::{Errors, OrFault, fields};
use crate::hcm::upgrade::Upgrades;
use crate::proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as proto;

pub(super) fn compile(configs: &[proto::UpgradeConfig]) -> Result<Upgrades, Errors> {
    let mut errors = Errors::new();
    let upgrades = errors.each("upgrade_configs", configs, |config| {
        let proto::UpgradeConfig { upgrade_type, enabled } = config;
        let kind = fields::non_empty(upgrade_type).at("upgrade_type")?;
        Ok((kind, enabled.unwrap_or(true)))
    });
    errors.finish()?;
    Ok(Upgrades(upgrades.into()))
}
