//! Closed segments in the bucket, compressed.
//!
//! Refuses to believe the bucket: what comes is bounded by what the database says, and is the file only if its digest is.

use std::{io::Read as _, sync::Arc};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use chaperone_bucket::{Said, Way};
use chaperone_sinks::{net::HostNet, settings::S3};
use object_store::{
    Attribute, Attributes, GetOptions, ObjectStore, ObjectStoreExt as _, PutOptions, aws::AmazonS3,
    path::Path,
};
use sha2::{Digest as _, Sha256};

use super::{Failed, database::Database, plan::Object};
use crate::random;

/// zstd's own default.
const LEVEL: i32 = 3;
/// Most bytes of an object: a segment and the longest commit after it, should they not compress.
const MAX_OBJECT_BYTES: usize = 128 * 1024 * 1024;

/// Puts a file in the place of another, as the leader of this epoch: into the bucket, where there is one for it.
pub(super) async fn replace(
    database: &mut Database,
    objects: Option<&Objects>,
    epoch: u64,
    file: &str,
    bytes: Vec<u8>,
) -> Result<(), Failed> {
    let Some(objects) = objects else {
        return database.replace(epoch, file, &bytes, None).await;
    };
    let object = objects.keep(database, file, bytes).await?;
    database.replace(epoch, file, &[], Some(&object)).await
}

/// A bucket.
#[derive(Debug)]
pub(super) struct Objects {
    store: AmazonS3,
    said: Said,
    prefix: String,
}

impl Objects {
    /// Reads the settings.
    pub(super) fn new(s3: &S3, version: &str) -> Result<Self, Failed> {
        let way = Way {
            net: Arc::new(HostNet),
            version: version.to_owned(),
        };
        let store = chaperone_bucket::store(s3, &way, MAX_OBJECT_BYTES);
        let (store, said) = store.map_err(|error| anyhow!("the bucket: {error}"))?;
        Ok(Self {
            store,
            said,
            prefix: s3.prefix.clone(),
        })
    }

    /// A name for this segment that no object has: two that put the same one put two objects.
    fn name(&self, file: &str) -> Result<String, Failed> {
        let unique = random::name().map_err(|refusal| anyhow!(refusal.message))?;
        let segment = file
            .trim_start_matches("records/")
            .trim_end_matches(".jsonl");
        Ok(format!(
            "{}/segments/{segment}-{unique}.jsonl.zst",
            self.prefix
        ))
    }

    /// Puts a segment. The object is noted before it is put, so that one that nothing comes to point to is removed.
    pub(super) async fn keep(
        &self,
        database: &mut Database,
        file: &str,
        bytes: Vec<u8>,
    ) -> Result<Object, Failed> {
        let name = self.name(file)?;
        database.leave(&name).await?;
        self.put(name, bytes).await
    }

    async fn put(&self, name: String, bytes: Vec<u8>) -> Result<Object, Failed> {
        let (length, sha256) = (bytes.len(), Sha256::digest(&bytes).into());
        let packed = tokio::task::spawn_blocking(move || pack(&bytes)).await??;
        let stored = packed.len();
        if length > MAX_OBJECT_BYTES || stored > MAX_OBJECT_BYTES {
            bail!("{name} is longer than an object may be");
        }
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, "application/zstd".into());
        let options = PutOptions {
            attributes,
            ..PutOptions::default()
        };
        self.said.clear();
        let path = path(&name)?;
        let put = self.store.put_opts(&path, packed.into(), options).await;
        put.map_err(|error| self.why(&name, &error))?;
        Ok(Object {
            name,
            length: u64::try_from(length)?,
            stored: u64::try_from(stored)?,
            sha256,
        })
    }

    /// The file that an object is.
    pub(super) async fn get(&self, object: &Object) -> Result<Vec<u8>, Failed> {
        let name = &object.name;
        self.said.clear();
        let path = path(name)?;
        let got = self.store.get_opts(&path, GetOptions::default()).await;
        let got = got.map_err(|error| self.why(name, &error))?;
        let packed = got.bytes().await.map_err(|error| self.why(name, &error))?;
        if u64::try_from(packed.len())? != object.stored {
            bail!("{name} in the bucket is not as long as what was put there");
        }
        let (length, sha256) = (object.length, object.sha256);
        let file = tokio::task::spawn_blocking(move || unpack(&packed, length)).await?;
        let file = file.with_context(|| format!("{name} in the bucket"))?;
        if <[u8; 32]>::from(Sha256::digest(&file)) != sha256 {
            bail!("{name} in the bucket is not what was put there");
        }
        Ok(file)
    }

    /// Removes an object, if it is there.
    pub(super) async fn remove(&self, name: &str) -> Result<(), Failed> {
        self.said.clear();
        match self.store.delete(&path(name)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.why(name, &error)),
        }
    }

    /// The library's words hide what the request met.
    fn why(&self, name: &str, error: &object_store::Error) -> Failed {
        match self.said.take() {
            Some(failed) => anyhow!("the bucket, {name}: {failed}"),
            None => anyhow!("the bucket, {name}: {error}"),
        }
    }
}

fn path(name: &str) -> Result<Path, Failed> {
    Path::parse(name).with_context(|| format!("{name:?} is no name of an object"))
}

fn pack(bytes: &[u8]) -> Result<Bytes, Failed> {
    Ok(Bytes::from(zstd::encode_all(bytes, LEVEL)?))
}

/// Reads no more than there should be, and a byte that says that there is more.
fn unpack(packed: &[u8], length: u64) -> Result<Vec<u8>, Failed> {
    let most = u64::try_from(MAX_OBJECT_BYTES)?.min(length);
    let mut file = Vec::new();
    let decoder = zstd::Decoder::new(packed)?;
    decoder
        .take(most.saturating_add(1))
        .read_to_end(&mut file)?;
    if u64::try_from(file.len())? != length {
        bail!("it has not the length that it was put with");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_and_a_bomb_does_not_unfold() {
        let file = b"{\"seq\":0}\n".repeat(1000);
        let packed = pack(&file).unwrap();
        assert!(packed.len() < 200);
        assert_eq!(unpack(&packed, 10_000).unwrap(), file);
        assert!(unpack(&packed, 9_999).is_err());
        assert!(unpack(&packed, 10_001).is_err());
        assert!(unpack(b"no zstd", 1).is_err());
        assert!(unpack(packed.get(..packed.len() - 5).unwrap(), 10_000).is_err());
    }
}
