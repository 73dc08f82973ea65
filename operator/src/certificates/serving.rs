//! Serving certificates: made under the root, renewed when they grow old, replaced when names are missing. One Secret each.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::{
    Authority, KeyedCertificate, ServingCertificate,
    authority::certificate_expiry,
    secrets::{Secrets, content},
    store::StoreError,
};

/// Secret of the operator's serving certificate.
pub const SERVING_SECRET: &str = "chaperone-serving";
/// Secret of the ledger's serving certificate, which the ledger's pod mounts.
pub const LEDGER_SERVING_SECRET: &str = "chaperone-ledger-serving";

/// One serving certificate that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    secret: &'static str,
    common_name: &'static str,
    label: &'static str,
    names: Vec<String>,
    installed: Option<ServingCertificate>,
}

impl Kept {
    /// The operator's own, which `installed` serves with.
    #[must_use]
    pub fn operator(names: Vec<String>, installed: ServingCertificate) -> Self {
        Self {
            secret: SERVING_SECRET,
            common_name: "chaperone-operator",
            label: "serving",
            names,
            installed: Some(installed),
        }
    }

    /// The ledger's.
    #[must_use]
    pub fn ledger(names: Vec<String>) -> Self {
        Self {
            secret: LEDGER_SERVING_SECRET,
            common_name: "chaperone-ledger",
            label: "ledger",
            names,
            installed: None,
        }
    }

    /// What metrics call it.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.label
    }

    /// Loads it and serves with it where this process does; makes it if it is missing or not usable, and on the leader if it is old. Gives its end.
    pub(super) async fn keep(
        &self,
        secrets: &Secrets,
        authority: &Authority,
        is_leader: bool,
        now: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        let secret = secrets.get(self.secret).await?;
        let found = secret.as_ref().and_then(content);
        let serving = match found {
            Some(found) if !self.is_due(authority, &found, is_leader, now) => found,
            _ => self.renew(secrets, authority, secret, now).await?,
        };
        let bad = |source| StoreError::Content {
            name: self.secret,
            source,
        };
        if let Some(installed) = &self.installed {
            installed.install(&serving).map_err(bad)?;
        }
        certificate_expiry(&serving.certificate).map_err(bad)
    }

    /// Whether another is to be made now. A follower makes one only where there is none to serve with: else it is the leader's work.
    fn is_due(
        &self,
        authority: &Authority,
        found: &KeyedCertificate,
        is_leader: bool,
        now: Timestamp,
    ) -> bool {
        let is_alive = certificate_expiry(&found.certificate).is_ok_and(|expiry| now < expiry);
        let is_usable = is_alive && authority.signed(found, &self.names);
        let is_fresh = authority.vouches_for(found, &self.names, now);
        !(is_fresh || (!is_leader && is_usable))
    }

    async fn renew(
        &self,
        secrets: &Secrets,
        authority: &Authority,
        before: Option<Secret>,
        now: Timestamp,
    ) -> Result<KeyedCertificate, StoreError> {
        let name = self.secret;
        let serving = authority
            .mint_serving(self.common_name, &self.names, now)
            .map_err(|source| StoreError::Content { name, source })?;
        tracing::info!(secret = name, "renewing a serving certificate");
        let stored = match before {
            None => secrets.create(name, &serving).await?,
            Some(before) => secrets.replace(name, before, &serving).await?,
        };
        Ok(content(&stored).unwrap_or(serving))
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::certificates::authority::tests::authority;

    #[test]
    fn what_is_due_is_judged_by_age_root_names_and_who_leads() {
        let (ours, other, now) = (authority(), authority(), Timestamp::now());
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let kept = Kept::ledger(names(&["ledger.system.svc", "ledger.example"]));
        let mint = |root: &Authority, all: &[&str]| {
            root.mint_serving("chaperone-ledger", &names(all), now)
                .unwrap()
        };
        let all = &["ledger.system.svc", "ledger.example"][..];
        let after = |days: i64| now + SignedDuration::from_hours(24 * days);
        // (certificate, when, due on a follower, due on the leader)
        let cases = [
            (mint(&ours, all), now, false, false),
            (mint(&ours, all), after(59), false, false),
            (mint(&ours, all), after(61), false, true),
            (mint(&ours, all), after(91), true, true),
            (mint(&other, all), now, true, true),
            (mint(&ours, &all[..1]), now, true, true),
            (
                mint(
                    &ours,
                    &["ledger.system.svc", "ledger.example", "former.example"],
                ),
                now,
                false,
                false,
            ),
        ];
        for (at, (found, when, follower, leader)) in cases.into_iter().enumerate() {
            assert_eq!(kept.is_due(&ours, &found, false, when), follower, "{at}");
            assert_eq!(kept.is_due(&ours, &found, true, when), leader, "{at}");
        }
    }
}
