//! What the operator sends.

use chaperone_crds::control::ControlMessage;
use chaperone_sidecar::policy;

/// A line of the control stream. A configuration names its revision, which no mutation hits: it is put right, so that the rest is read too.
pub(crate) fn control(bytes: &[u8]) {
    let Ok(ControlMessage::Config { mut config }) = serde_json::from_slice(bytes) else {
        return;
    };
    config.revision = config.snapshot.revision();
    let _ = policy::compile(*config);
}
