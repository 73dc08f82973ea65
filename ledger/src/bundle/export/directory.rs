//! A ledger's directory.

use std::{io, path::Path};

use chaperone_crds::{
    chain::MAX_RECORD_BYTES,
    head::Head,
    verify::{Line, Seen, each_line},
};

use super::{ExportError, Looked, Shelf};
use crate::{
    audit::directory,
    bundle::Named,
    leaf::Leaf,
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
        let look = |line: Line<'_>| {
            let Seen::Record(head, hash) = Seen::of(line) else {
                return None;
            };
            let (Line::Whole(bytes) | Line::Last(bytes)) = line else {
                return None;
            };
            Some(Looked {
                named: Named::of(&head, bytes),
                line: wanted(&head).then(|| bytes.to_vec()),
                leaf: Leaf {
                    stream: head.stream,
                    seq: head.seq,
                    record: hash,
                },
            })
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
            each_line(file, MAX_RECORD_BYTES, look, |offset, looked| {
                if outcome.is_ok() {
                    // At the very end a line may be unfinished; if the checkpoint needs it, its tile will not agree.
                    outcome = match looked {
                        Some(looked) => take(index, looked),
                        None if newest == Some(number) => Ok(()),
                        None => Err(damaged(offset)),
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
