//! Descriptor sets: what the messages of services are made of, as `protoc --include_imports --descriptor_set_out` and `buf build` write it.
//!
//! Owns their form on the way to a sidecar: packed, which is without comments, compressed, as text. Each set is a world of its own, so that two may hold different versions of
//! the same file, and a broken one breaks no other. Pure.

use std::io::{Read, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use prost_reflect::{
    DescriptorPool, MessageDescriptor, prost::Message, prost_types::FileDescriptorSet,
};
use serde::{Deserialize, Serialize};

use super::GrpcCall;

/// Largest set, in bytes as its compiler wrote it. All of Google's public interfaces have 15 MiB.
pub const MAX_SET_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes of all packed sets together, as they are sent to a sidecar: they share its message with the policies.
pub const MAX_PACKED_BYTES: usize = 512 * 1024;

/// Why a set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// It is no FileDescriptorSet, or files that it needs are missing.
    #[error("{name} is no descriptor set that can be used: {why}")]
    Unusable {
        /// Which set.
        name: String,
        /// What is wrong, and how to mend it.
        why: String,
    },
}

/// A set on its way to a sidecar.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DescriptorSet {
    /// Where it came from, for messages.
    pub name: String,
    /// The FileDescriptorSet without comments: gzip, base64.
    pub packed: String,
}

impl DescriptorSet {
    /// Packs a FileDescriptorSet.
    ///
    /// # Errors
    /// Where it cannot be used.
    pub fn pack(name: &str, bytes: &[u8]) -> Result<Self, DescriptorError> {
        if bytes.len() > MAX_SET_BYTES {
            let why = format!(
                "it has {} bytes; at most {MAX_SET_BYTES} are read",
                bytes.len()
            );
            return Err(unusable(name, why));
        }
        let mut set = FileDescriptorSet::decode(bytes).map_err(|error| {
            let why = "make it with protoc --include_imports --descriptor_set_out=FILE or buf build -o FILE";
            unusable(name, format!("{error}; {why}"))
        })?;
        for file in &mut set.file {
            file.source_code_info = None;
        }
        let pool = pool(name, &set)?;
        if pool.services().len() == 0 {
            return Err(unusable(name, "it has no service".to_owned()));
        }
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        let packed = gzip
            .write_all(&set.encode_to_vec())
            .and_then(|()| gzip.finish())
            .map_err(|error| unusable(name, error.to_string()))?;
        Ok(Self {
            name: name.to_owned(),
            packed: STANDARD.encode(packed),
        })
    }

    fn unpack(&self) -> Result<DescriptorPool, DescriptorError> {
        let broken = |why: String| unusable(&self.name, why);
        let packed = STANDARD.decode(&self.packed);
        let packed = packed.map_err(|error| broken(error.to_string()))?;
        let mut bytes = Vec::new();
        let most = MAX_SET_BYTES as u64;
        GzDecoder::new(&packed[..])
            .take(most.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| broken(error.to_string()))?;
        if bytes.len() > MAX_SET_BYTES {
            return Err(broken(format!(
                "it unfolds to more than {MAX_SET_BYTES} bytes"
            )));
        }
        let set = FileDescriptorSet::decode(&bytes[..]);
        pool(&self.name, &set.map_err(|error| broken(error.to_string()))?)
    }
}

fn pool(name: &str, set: &FileDescriptorSet) -> Result<DescriptorPool, DescriptorError> {
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_set(set.clone()).map_err(|error| {
        let why = "a set needs all that it imports (--include_imports), in proto2 or proto3";
        unusable(name, format!("{error}; {why}"))
    })?;
    Ok(pool)
}

fn unusable(name: &str, why: String) -> DescriptorError {
    DescriptorError::Unusable {
        name: name.to_owned(),
        why,
    }
}

/// All sets, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Descriptors {
    pools: Vec<DescriptorPool>,
}

/// Both messages of a procedure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// What the client sends.
    pub request: MessageDescriptor,
    /// What the server sends.
    pub response: MessageDescriptor,
}

impl Descriptors {
    /// Reads sets; those that cannot be used are left out, and said. Where several have a service, the first counts.
    #[must_use]
    pub fn load(sets: &[DescriptorSet]) -> (Self, Vec<DescriptorError>) {
        let (mut pools, mut unusable) = (Vec::new(), Vec::new());
        for set in sets {
            match set.unpack() {
                Ok(pool) => pools.push(pool),
                Err(error) => unusable.push(error),
            }
        }
        (Self { pools }, unusable)
    }

    /// Whether there is no set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// The messages of a procedure; `None`: no set has it.
    #[must_use]
    pub fn method(&self, call: &GrpcCall<'_>) -> Option<Method> {
        let services = self.pools.iter();
        let service = services
            .filter_map(|pool| pool.get_service_by_name(call.service))
            .next()?;
        let method = service
            .methods()
            .find(|known| known.name() == call.method)?;
        Some(Method {
            request: method.input(),
            response: method.output(),
        })
    }
}
