//! Configurations on their way from the control stream into force.

use std::sync::Arc;

use anyhow::Context;
use chaperone_crds::control::{Ack, PodConfig};
use tokio::sync::watch;

use crate::{audit::AuditHandle, policy::Enforcement, shared::Shared};

/// Puts configurations in force as they come.
pub(super) struct Enforcer {
    pub(super) enforcement: Enforcement,
    pub(super) shared: Arc<Shared>,
    pub(super) audit: AuditHandle,
    pub(super) acks: watch::Sender<Option<Ack>>,
}

impl Enforcer {
    /// Waits until a configuration is in force.
    pub(super) async fn first(
        &self,
        mut config: PodConfig,
        received: &mut watch::Receiver<Option<PodConfig>>,
    ) -> anyhow::Result<()> {
        while !self.enforce(config) {
            received.changed().await?;
            let next = received.borrow_and_update().clone();
            config = next.context("the operator sent no configuration")?;
        }
        Ok(())
    }

    /// Puts every further one in force.
    pub(super) async fn keep(&self, mut received: watch::Receiver<Option<PodConfig>>) {
        while received.changed().await.is_ok() {
            let config = received.borrow_and_update().clone();
            if let Some(config) = config {
                self.enforce(config);
            }
        }
    }

    /// Puts a configuration in force and tells the operator what came of it.
    fn enforce(&self, config: PodConfig) -> bool {
        let revision = config.revision.clone();
        let result = self.enforcement.apply(&self.shared, &self.audit, config);
        let accepted = result.is_ok();
        let label = if accepted { "applied" } else { "rejected" };
        self.shared
            .metrics
            .policy_swaps
            .with_label_values(&[label])
            .inc();
        if let Err(error) = &result {
            tracing::error!(%error, %revision, "a configuration is unusable; the one before rules on");
        }
        self.acks.send_replace(Some(Ack {
            revision,
            accepted,
            error: result.err().map(|e| e.to_string()),
        }));
        accepted
    }
}
