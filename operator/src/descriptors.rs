//! Descriptor sets of gRPC services: what labelled ConfigMaps of the operator's namespace hold, packed for sidecars.
//!
//! Owns which sets reach pods. Refuses sets that cannot be used, and what does not fit; each is logged once, and the others go on. Invariant: equal ConfigMaps give equal sets, in
//! the same order.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use chaperone_crds::grpc::{DescriptorSet, MAX_PACKED_BYTES};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

/// A ConfigMap by name and version.
type Version = (String, Option<String>);
/// What came of its keys.
type Keys = Vec<Result<DescriptorSet, String>>;

/// Sets that were packed, so that each version of a ConfigMap is packed once.
#[derive(Debug, Default)]
pub struct Packed {
    known: HashMap<Version, Keys>,
    sets: Arc<Vec<DescriptorSet>>,
}

impl Packed {
    /// The sets of these ConfigMaps, by name and key.
    pub fn read(&mut self, maps: &[Arc<ConfigMap>]) -> Arc<Vec<DescriptorSet>> {
        let mut before = std::mem::take(&mut self.known);
        let mut changed = false;
        for map in maps {
            let version = (map.name_any(), map.resource_version());
            let packed = before.remove(&version).unwrap_or_else(|| {
                changed = true;
                pack(map)
            });
            self.known.insert(version, packed);
        }
        if changed || !before.is_empty() {
            self.sets = Arc::new(self.fitting());
        }
        Arc::clone(&self.sets)
    }

    /// All that can be used, as far as they fit a message to a sidecar.
    fn fitting(&self) -> Vec<DescriptorSet> {
        let usable = self.known.values().flatten().flatten();
        let sorted: BTreeMap<&str, &DescriptorSet> =
            usable.map(|set| (set.name.as_str(), set)).collect();
        let mut left = MAX_PACKED_BYTES;
        let mut sets = Vec::new();
        for (name, set) in sorted {
            match left.checked_sub(set.packed.len()) {
                Some(rest) => {
                    left = rest;
                    sets.push(set.clone());
                }
                None => tracing::error!(
                    descriptors = name,
                    bytes = set.packed.len(),
                    "all descriptor sets together take more than {MAX_PACKED_BYTES} bytes packed; this one is left out"
                ),
            }
        }
        sets
    }
}

/// Each set of a ConfigMap. A key in `data` is one that happens to be UTF-8.
fn pack(map: &ConfigMap) -> Keys {
    let binary = map.binary_data.iter().flatten();
    let binary = binary.map(|(key, value)| (key, value.0.as_slice()));
    let text = map.data.iter().flatten();
    let text = text.map(|(key, value)| (key, value.as_bytes()));
    let mut packed = Vec::new();
    for (key, bytes) in binary.chain(text) {
        let name = format!("{}/{key}", map.name_any());
        let set = DescriptorSet::pack(&name, bytes).map_err(|error| error.to_string());
        if let Err(error) = &set {
            tracing::error!(%error, "a descriptor set is left out");
        }
        packed.push(set);
    }
    packed
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    const SHOP: &[u8] = include_bytes!("../../crds/tests/descriptors/shop.binpb");

    fn map(name: &str, version: &str, keys: &[(&str, &[u8])]) -> Arc<ConfigMap> {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.metadata.resource_version = Some(version.to_owned());
        let keys = keys.iter();
        let keys = keys.map(|(key, bytes)| ((*key).to_owned(), ByteString(bytes.to_vec())));
        map.binary_data = Some(keys.collect());
        Arc::new(map)
    }

    fn names(sets: &[DescriptorSet]) -> Vec<&str> {
        sets.iter().map(|set| set.name.as_str()).collect()
    }

    #[test]
    fn usable_sets_come_in_order_and_broken_ones_are_left_out() {
        let mut packed = Packed::default();
        let maps = [
            map("b", "1", &[("shop.binpb", SHOP)]),
            map("a", "1", &[("shop.binpb", SHOP), ("broken", b"\xff")]),
        ];
        let sets = packed.read(&maps);
        assert_eq!(names(&sets), ["a/shop.binpb", "b/shop.binpb"]);
        assert!(Arc::ptr_eq(&sets, &packed.read(&maps)), "packed once");
        let sets = packed.read(&[map("b", "2", &[("other.binpb", SHOP)])]);
        assert_eq!(names(&sets), ["b/other.binpb"]);
        assert!(packed.read(&[]).is_empty());
    }
}
