//! The judgement: what is right and wrong with a cluster, and what mends it. A pure function of a [`ClusterView`].

mod agents;
mod control;
mod ledger;

use serde::Serialize;

use super::view::{ClusterView, Seen};

/// How bad a finding is.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Works, but someone should look.
    Warn,
    /// Something is not captured, not judged or not recorded.
    Fail,
}

/// One thing that was found.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// What it is about, as a word of a closed list.
    pub(crate) check: &'static str,
    /// What is the case.
    pub(crate) message: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            check,
            message: message.into(),
            mend: None,
        }
    }

    fn warn(check: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            check,
            message: message.into(),
            mend: Some(mend.into()),
        }
    }

    fn fail(check: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(check, message, mend)
        }
    }
}

/// Everything that is to be said of the cluster, in the order in which it should be mended.
pub(crate) fn findings(view: &ClusterView) -> Vec<Finding> {
    if is_absent(view) {
        return vec![Finding::fail(
            "installation",
            "Chaperone is not installed in this cluster",
            format!(
                "helm install chaperone charts/chaperone -n {} --create-namespace",
                view.namespace
            ),
        )];
    }
    [
        judge("crds", &view.crds, |crds| control::crds(crds, view)),
        judge("operator", &view.operator, |operator| {
            control::operator(operator.as_ref(), view)
        }),
        judge("webhooks", &view.webhooks, |webhooks| {
            control::webhooks(webhooks, view)
        }),
        judge("certificates", &view.serving, |serving| {
            control::serving(serving, view)
        }),
        judge("ledger", &view.ledger, |ledger| {
            ledger::ledger(ledger.as_ref(), view)
        }),
        judge("namespaces", &view.namespaces, |namespaces| {
            agents::namespaces(namespaces)
        }),
        judge("pods", &view.pods, |pods| agents::pods(pods, view)),
        judge("policies", &view.policies, |policies| {
            agents::policies(policies, view)
        }),
        judge("sinks", &view.sinks, |sinks| agents::sinks(sinks, view)),
    ]
    .concat()
}

/// Nothing of Chaperone is there. The definitions alone stay after an uninstall.
fn is_absent(view: &ClusterView) -> bool {
    matches!(&view.operator, Seen::Yes(None))
        && matches!(&view.webhooks, Seen::Yes(webhooks) if webhooks.is_empty())
}

fn judge<T>(
    check: &'static str,
    seen: &Seen<T>,
    judgement: impl FnOnce(&T) -> Vec<Finding>,
) -> Vec<Finding> {
    match seen {
        Seen::Yes(it) => judgement(it),
        Seen::No(why) => vec![Finding::warn(
            check,
            format!("not checked: {why}"),
            "run this with a user who may read it",
        )],
    }
}

/// `a, b, c and 4 more`.
fn some_of(names: &[String]) -> String {
    /// Names that a line holds.
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
