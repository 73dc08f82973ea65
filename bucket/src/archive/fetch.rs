//! The bytes of objects, one object after the other, a few pieces ahead.

use std::{io, ops::Range, sync::Arc, thread};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use object_store::{GetOptions, GetRange, ObjectStore as _, path::Path};
use tokio::{runtime::Handle, sync::mpsc};

use super::{AHEAD, Archive, NotRead, Object, Objects, PIECE};

/// Bytes that come.
pub struct Fetched {
    pieces: mpsc::Receiver<Result<Bytes, NotRead>>,
}

/// An object's bytes. What goes wrong with the store is kept apart from what is read.
pub struct ObjectReader<'a> {
    fetched: &'a mut Fetched,
    /// Pieces that come yet.
    left: u64,
    piece: Bytes,
    failed: Option<NotRead>,
}

impl Archive {
    /// Has these objects fetched, one after the other. Whoever reads must take each, but those that are too long.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn fetch(self: Arc<Self>, runtime: Handle, objects: Objects) -> io::Result<Fetched> {
        let (sender, pieces) = mpsc::channel(1);
        let fetching = move || runtime.block_on(self.pieces(&objects, &sender));
        thread::Builder::new()
            .name("fetch".to_owned())
            .spawn(fetching)?;
        Ok(Fetched { pieces })
    }

    /// Sends all pieces, in order, until one cannot be had or nobody takes them any more.
    async fn pieces(&self, objects: &[Object], to: &mpsc::Sender<Result<Bytes, NotRead>>) {
        let places = objects.iter().flat_map(|object| {
            let pieces = 0..pieces_of(of(object));
            pieces.map(move |piece| (object, piece))
        });
        let mut coming = stream::iter(places.enumerate())
            .map(|(lane, (object, piece))| self.piece(lane, object, piece))
            .buffered(AHEAD);
        while let Some(piece) = coming.next().await {
            let is_over = piece.is_err();
            if to.send(piece).await.is_err() || is_over {
                return;
            }
        }
    }

    async fn piece(&self, lane: usize, object: &Object, piece: u64) -> Result<Bytes, NotRead> {
        let name = format!("{}/{}", self.prefix, object.name);
        let changed = || NotRead::Changed(object.name.to_string());
        let path = Path::parse(&name).map_err(|_| changed())?;
        let range = range(object.size, piece);
        let wanted = range.end.saturating_sub(range.start);
        let is_all = wanted == object.size;
        let options = || GetOptions {
            range: (!is_all).then(|| GetRange::Bounded(range.clone())),
            if_match: object.tag.as_deref().map(str::to_owned),
            ..GetOptions::default()
        };
        let bytes = self
            .patiently(lane, &object.name, async |lane| {
                lane.store.get_opts(&path, options()).await?.bytes().await
            })
            .await?;
        match u64::try_from(bytes.len()) == Ok(wanted) {
            true => Ok(bytes),
            false => Err(changed()),
        }
    }
}

/// Bytes of an object that are asked for.
fn of(object: &Object) -> u64 {
    match object.is_too_long() {
        true => 0,
        false => object.size,
    }
}

fn pieces_of(size: u64) -> u64 {
    size.div_ceil(PIECE)
}

fn range(size: u64, piece: u64) -> Range<u64> {
    let start = piece.saturating_mul(PIECE);
    start..start.saturating_add(PIECE).min(size)
}

impl Fetched {
    /// The next object, which must be this.
    pub fn object(&mut self, object: &Object) -> ObjectReader<'_> {
        ObjectReader {
            left: pieces_of(of(object)),
            fetched: self,
            piece: Bytes::new(),
            failed: None,
        }
    }
}

impl ObjectReader<'_> {
    /// Passes over what was not read.
    ///
    /// # Errors
    /// Why something of it could not be had.
    pub fn end(mut self) -> Result<(), NotRead> {
        while self.left > 0 && self.failed.is_none() {
            self.advance();
        }
        self.failed.map_or(Ok(()), Err)
    }

    fn advance(&mut self) {
        self.left = self.left.saturating_sub(1);
        match self.fetched.pieces.blocking_recv() {
            Some(Ok(piece)) => self.piece = piece,
            Some(Err(failed)) => self.failed = Some(failed),
            // It ends only after a failure.
            None => {
                self.failed = Some(NotRead::Store {
                    what: "the bucket".to_owned(),
                    why: "nothing is fetched any more".to_owned(),
                    hint: "",
                });
            }
        }
    }
}

impl io::Read for ObjectReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && self.left > 0 && self.failed.is_none() {
            self.advance();
        }
        if self.failed.is_some() {
            return Err(io::Error::other("it could not be fetched"));
        }
        let count = buffer.len().min(self.piece.len());
        let taken = self.piece.split_to(count);
        if let Some(into) = buffer.get_mut(..count) {
            into.copy_from_slice(&taken);
        }
        Ok(count)
    }
}
