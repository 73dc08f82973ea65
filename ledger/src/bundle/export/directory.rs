//! A ledger's directory.

use std::{io, path::Path};

use chaperone_crds::{
    head::Head,
    verify::{Line, Seen, each_line},
};

use super::{ExportError, Looked, Shelf};
use crate::{
    audit::directory,
    bundle::Named,
    content::{Content, Keys},
    leaf::Leaf,
    line::{MAX_LINE_BYTES, Stored},
    store::{layout, segments},
    tile::Tile,
};

pub(super) struct Directory<'a>(pub(super) &'a Path);

impl Shelf for Directory<'_> {
    fn each(
        &self,
        wanted: &(dyn Fn(&Head) -> bool + Sync),
        take: &mut dyn FnMut(u64, Looked) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let keys = Keys::of(self.0);
        let look = |line: Line<'_>| match line {
            Line::Whole(bytes) | Line::Last(bytes) => look(bytes, &keys, wanted),
            Line::TooLong => At::Nothing,
        };
        let folder = self.0.join(layout::RECORDS);
        let numbers =
            segments::list(&folder).map_err(|error| directory::unreadable(&folder, error))?;
        let newest = numbers.last().copied();
        let mut index = 0_u64;
        for (number, expected) in numbers.into_iter().zip(0..) {
            let damaged =
                |offset: u64| ExportError::Damaged(format!("segment {number:08}, byte {offset}"));
            if number != expected {
                return Err(ExportError::Damaged(format!(
                    "segment {expected:08}, which is missing"
                )));
            }
            let path = segments::path(&folder, number);
            let failed = |error| ExportError::Ledger(directory::unreadable(&path, error));
            let file = directory::open(&path).map_err(failed)?;
            let mut outcome = Ok(());
            each_line(file, MAX_LINE_BYTES, look, |offset, looked| {
                if outcome.is_ok() {
                    // At the very end a line may be unfinished; if the checkpoint needs it, its tile will not agree.
                    outcome = match looked {
                        At::Record(looked) => take(index, *looked),
                        At::Beginning => return,
                        At::Nothing if newest == Some(number) => Ok(()),
                        At::Nothing => Err(damaged(offset)),
                        At::Unreadable(error) => Err(ExportError::Ledger(directory::unreadable(
                            &self.0.join(layout::KEYS),
                            error,
                        ))),
                    };
                    index = index.saturating_add(1);
                }
            })
            .map_err(failed)?;
            outcome?;
        }
        Ok(())
    }

    fn tile(&self, tile: Tile) -> io::Result<Vec<u8>> {
        directory::tile(self.0, tile)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// What a line is here.
enum At {
    Record(Box<Looked>),
    /// It begins a segment that was written anew.
    Beginning,
    Nothing,
    /// The keys can't be read.
    Unreadable(io::Error),
}

fn look(bytes: &[u8], keys: &Keys, wanted: &(dyn Fn(&Head) -> bool + Sync)) -> At {
    let Ok(stored) = Stored::read(bytes) else {
        return At::Nothing;
    };
    let record = match &stored {
        Stored::Begins(_) => return At::Beginning,
        // Its leaf is all that there is to show.
        Stored::Deleted(leaf) => {
            return At::Record(Box::new(Looked {
                leaf: leaf.clone(),
                named: Named::default(),
                line: None,
            }));
        }
        Stored::Record(line) => line,
        Stored::Sealed(sealed) => sealed.detached,
    };
    let Seen::Record(head, hash) = Seen::of(Line::Whole(record)) else {
        return At::Nothing;
    };
    let line = match (&stored, wanted(&head)) {
        (_, false) => None,
        (Stored::Sealed(sealed), true) => match keys.open(sealed) {
            Ok(Content::There(line)) => Some(line),
            Ok(Content::Gone | Content::Damaged) => Some(record.to_vec()),
            Err(error) => return At::Unreadable(error),
        },
        (_, true) => Some(record.to_vec()),
    };
    At::Record(Box::new(Looked {
        named: Named::of(&head, record),
        line,
        leaf: Leaf {
            stream: head.stream,
            seq: head.seq,
            record: hash,
        },
    }))
}
