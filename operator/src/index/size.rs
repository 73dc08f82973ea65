//! What fits into one line of the control stream, and what to do where something does not.
//!
//! Owns the shares of a line. Refuses plans that could not be sent: their pods keep the last configuration that was good, and the status of policies and sinks says why.
//! Invariant: a plan that is let through makes a line of at most [`MAX_MESSAGE_BYTES`].

use chaperone_crds::{
    control::{ClientCertificate, MAX_MESSAGE_BYTES, SinkConfig},
    grpc::DescriptorSet,
    pod::PodIdentity,
};
use serde::Serialize;

/// What of a line is neither snapshot nor frame, in bytes of JSON, at most: sinks, roots, descriptor sets, client certificates, the pod's identity.
const MAX_REST_BYTES: usize = 1024 * 1024;
/// The frame of a line: names of fields, the revision, the mask key. It has some 300 bytes.
const FRAME_BYTES: usize = 4096;
/// All sinks together, in bytes of JSON, at most. The file of extra roots may have 512 KiB.
const MAX_SINKS_BYTES: usize = 384 * 1024;

/// Bytes of what all pods share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared {
    sinks: usize,
    roots: usize,
    descriptors: usize,
}

impl Shared {
    pub(super) fn of(
        sinks: &[SinkConfig],
        extra_roots: &str,
        descriptors: &[DescriptorSet],
    ) -> Self {
        Self {
            sinks: bytes(&sinks),
            roots: bytes(&extra_roots),
            descriptors: bytes(&descriptors),
        }
    }

    /// Whether what is no policy fits, for one pod.
    ///
    /// # Errors
    /// What is too large, and what to do.
    pub(super) fn check(
        self,
        identity: &PodIdentity,
        certificate_bytes: usize,
    ) -> Result<(), String> {
        if let Some(problem) = too_many_sinks(self.sinks) {
            return Err(problem);
        }
        let identity = bytes(identity);
        let (sinks, roots, descriptors) = (self.sinks, self.roots, self.descriptors);
        let parts = [sinks, roots, descriptors, certificate_bytes, identity];
        let all: usize = parts.iter().sum();
        if all <= MAX_REST_BYTES {
            return Ok(());
        }
        Err(format!(
            "besides its policies the pod's configuration has {all} bytes, and at most {MAX_REST_BYTES} fit: {sinks} of sinks, {roots} of extraRoots, {descriptors} of descriptor sets, {certificate_bytes} of client certificates, {identity} of the pod's \
             labels and images; shorten the largest. The pod keeps the last configuration that was good."
        ))
    }
}

/// Whether a snapshot fits.
///
/// # Errors
/// By how much it is too large, and what to do.
pub(super) fn check_snapshot(size: usize) -> Result<(), String> {
    let limit = MAX_MESSAGE_BYTES - MAX_REST_BYTES - FRAME_BYTES;
    if size <= limit {
        return Ok(());
    }
    Err(format!(
        "the policies that select this pod have {size} bytes together, and at most {limit} fit; shorten them (a caBundle may hold roots that are not needed), or let fewer select the pod. It keeps the last \
         configuration that was good."
    ))
}

/// What keeps these sinks from being sent, if so.
#[must_use]
pub fn sinks_problem(sinks: &[SinkConfig]) -> Option<String> {
    too_many_sinks(bytes(&sinks))
}

fn too_many_sinks(size: usize) -> Option<String> {
    (size > MAX_SINKS_BYTES).then(|| {
        format!(
            "all AuditSinks together, with their Secrets, have {size} bytes, and at most {MAX_SINKS_BYTES} fit into a pod's configuration; shorten caBundle or the Secrets, or delete a sink. Pods keep the last \
             configuration that was good."
        )
    })
}

/// Bytes of certificates as they are sent.
pub(super) fn certificate_bytes(certificates: &[ClientCertificate]) -> usize {
    bytes(&certificates)
}

/// Bytes of a part as it is sent. What does not serialise is never sent.
fn bytes(part: &impl Serialize) -> usize {
    serde_json::to_vec(part).map_or(usize::MAX / 8, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use chaperone_crds::{control::SinkTarget, resources::Format};
    use serde_json::json;

    use super::*;
    use crate::index::{
        index,
        tests::{namespaced, pod, world},
    };

    fn sink(name: &str, bundle: usize) -> SinkConfig {
        SinkConfig {
            name: name.to_owned(),
            target: SinkTarget::Http {
                url: "https://sink.example.com/".to_owned(),
                bearer: None,
                client_cert: None,
                client_key: None,
                // A character of two bytes in JSON, as the ends of a bundle's lines are.
                ca_bundle: Some("\n".repeat(bundle / 2)),
                batch_size: 500,
            },
            format: Format::Native,
            filter: None,
        }
    }

    /// The bytes of the line for a pod with so much of everything, or why there is none.
    fn line(sinks: usize, roots: usize, labels: usize, message: usize) -> Result<usize, String> {
        let mut policy = namespaced("a", "p", json!({}), "r");
        if let Ok(content) = &mut policy.content {
            std::sync::Arc::make_mut(content).rules[0].message = Some("m".repeat(message));
        }
        let mut pod = pod("a", "one", &[]);
        pod.labels.insert("l".to_owned(), "v".repeat(labels));
        let mut world = world(vec![policy], vec![pod]);
        world.sinks = std::sync::Arc::new(vec![sink("s", sinks)]);
        world.extra_roots = "r".repeat(roots).into();
        let index = index(&world, |_| Ok(()));
        let plan = index.pods["uid-one"].clone()?;
        Ok(bytes(&plan.config()) + r#"{"type":"config","config":}"#.len() + 1)
    }

    const KIB: usize = 1024;

    #[test]
    fn what_fits_is_planned_and_what_does_not_says_what_is_too_large_and_what_to_do() {
        for (sinks, roots, labels, message, expected) in [
            (0, 0, 0, 0, None),
            (380 * KIB, 512 * KIB, 100 * KIB, 3000 * KIB, None),
            (390 * KIB, 0, 0, 0, Some("delete a sink")),
            (
                380 * KIB,
                512 * KIB,
                140 * KIB,
                0,
                Some("shorten the largest"),
            ),
            (0, 0, 1100 * KIB, 0, Some("of the pod's labels")),
            (0, 0, 0, 3080 * KIB, Some("let fewer select the pod")),
        ] {
            match (line(sinks, roots, labels, message), expected) {
                (Ok(bytes), None) => assert!(bytes <= MAX_MESSAGE_BYTES, "{bytes}"),
                (Err(why), Some(expected)) => {
                    assert!(why.contains(expected), "{why}");
                    assert!(why.contains("keep"), "{why}");
                }
                (found, expected) => panic!("{found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn the_largest_plan_that_is_let_through_is_a_line_that_can_be_sent() {
        // Looks for each limit, to the kibibyte, with the others at theirs.
        let largest = |from: usize, fits: &dyn Fn(usize) -> bool| {
            let (mut low, mut high) = (from * KIB, (from + 256) * KIB);
            while high - low > KIB {
                let middle = usize::midpoint(low, high);
                match fits(middle) {
                    true => low = middle,
                    false => high = middle,
                }
            }
            low
        };
        let sinks = largest(200, &|size| line(size, 0, 0, 0).is_ok());
        let roots = largest(512, &|size| line(sinks, size, 0, 0).is_ok());
        let message = largest(2900, &|size| line(sinks, roots, 0, size).is_ok());
        let bytes = line(sinks, roots, 0, message).unwrap();
        assert!(bytes <= MAX_MESSAGE_BYTES, "{bytes}");
        assert!(bytes > MAX_MESSAGE_BYTES - 3 * FRAME_BYTES, "{bytes}");
    }
}
