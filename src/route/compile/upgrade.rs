//! `RouteAction.upgrade_configs` to [`UpgradeRule`]s.

use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::route::v3::route_action as proto;
use crate::route::upgrade::UpgradeRule;

pub(super) fn compile(configs: &[proto::UpgradeConfig]) -> Result<Box<[UpgradeRule]>, Errors> {
    let mut errors = Errors::new();
    let rules = errors.each("upgrade_configs", configs, rule);
    let twice = rules.iter().enumerate().find(|(at, rule)| {
        rules[..*at].iter().any(|other| other.kind.eq_ignore_ascii_case(&rule.kind))
    });
    if let Some((at, rule)) = twice {
        let fault = Fault::Conflict(format!("{} is said before", rule.kind).into());
        errors.take(Err::<(), _>(Errors::from(fault).index(at).at("upgrade_configs")));
    }
    errors.finish()?;
    Ok(rules.into())
}

fn rule(config: &proto::UpgradeConfig) -> Result<UpgradeRule, Errors> {
    let proto::UpgradeConfig { upgrade_type, enabled, connect_config } = config;
    let kind = fields::non_empty(upgrade_type).at("upgrade_type")?;
    let ends_here = connect_config.is_some();
    if ends_here && !kind.eq_ignore_ascii_case("CONNECT") {
        let fault = Fault::Conflict("only for the upgrade_type CONNECT".into());
        return Err(Errors::from(fault).at("connect_config"));
    }
    Ok(UpgradeRule { kind, is_enabled: enabled.unwrap_or(true), ends_here })
}
