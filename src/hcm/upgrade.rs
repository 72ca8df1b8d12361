//! Which protocols clients may change to (`HttpConnectionManager.upgrade_configs`).

use std::sync::Arc;

use crate::exchange::RequestHead;
use crate::exchange::upgrade::{AskedUpgrade, Upgrade, WantsTunnel};

/// The protocols, and whether each is enabled. What is not named is not.
#[derive(Debug, Default)]
pub struct Upgrades(pub(super) Box<[(Arc<str>, bool)]>);

impl Upgrades {
    /// What a request asks for that its codec can do. The route has a word in it too.
    pub(super) fn asked(&self, head: &mut RequestHead) -> Option<AskedUpgrade> {
        head.extensions.remove::<WantsTunnel>()?;
        let upgrade = Upgrade::asked(head)?;
        let rule = self.0.iter().find(|(kind, _)| upgrade.is(kind));
        let is_allowed = rule.is_some_and(|(_, is_enabled)| *is_enabled);
        Some(AskedUpgrade { upgrade, is_allowed })
    }
}
