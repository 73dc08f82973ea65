//! A file as a sink: batches are appended and synced.
//!
//! Invariant: the file ends with a whole line, but for the moment of a write; a torn one is cut before the next.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use chaperone_crds::{
    render::{MAX_RENDERED_BYTES, beginning},
    resources::Format,
};

use super::error::SinkError;

/// Bytes of a file's end that nearly always have the end of a line in them: more are read, and held in memory, only where they have not.
const USUAL_TAIL: usize = 64 * 1024;

/// An open file, locked against other processes of ours.
#[derive(Debug)]
pub(super) struct FileSink {
    file: File,
    /// Bytes of whole lines.
    length: u64,
}

impl FileSink {
    /// Opens the file `path`. With `dir`, `path` must be a plain name and lies there.
    pub(super) fn open(path: &str, dir: Option<&Path>) -> Result<Self, SinkError> {
        let path = place(path, dir)?;
        open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => SinkError::Write(io::Error::other(format!(
                "{} is in use by another process",
                path.display()
            ))),
            _ => SinkError::Write(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        })
    }

    /// Appends the lines; they are on disk when this returns.
    pub(super) fn deliver(&mut self, lines: &[u8]) -> Result<(), SinkError> {
        let write = self
            .file
            .write_all_at(lines, self.length)
            .and_then(|()| self.file.sync_data());
        match write {
            Ok(()) => {
                self.length = self.length.saturating_add(lines.len() as u64);
                Ok(())
            }
            Err(error) => {
                // If this fails too, the next write covers the same bytes.
                let _ = self.file.set_len(self.length);
                Err(SinkError::Write(error))
            }
        }
    }
}

fn place(path: &str, dir: Option<&Path>) -> Result<PathBuf, SinkError> {
    let Some(dir) = dir else {
        return Ok(PathBuf::from(path));
    };
    if path.is_empty() || path.contains(['/', '\0']) || path == "." || path == ".." {
        let why = format!("{path:?} is no plain file name");
        return Err(SinkError::Settings(why));
    }
    Ok(dir.join(path))
}

fn open(path: &Path) -> io::Result<FileSink> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
        // A file system without locks.
        Err(TryLockError::Error(error)) => tracing::warn!(%error, "the file cannot be locked"),
    }
    let size = file.metadata()?.len();
    let length = whole_lines(&file, size)?;
    if length < size {
        tracing::warn!(path = %path.display(), bytes = size - length, "cutting a torn record");
        file.set_len(length)?;
    }
    Ok(FileSink { file, length })
}

/// Where the last whole line ends. Only what can be a torn record is taken for one: a longer tail without a newline was not written by a sink.
fn whole_lines(file: &File, size: u64) -> io::Result<u64> {
    let (mut start, mut tail) = ends(file, size, USUAL_TAIL)?;
    if memchr::memrchr(b'\n', &tail).is_none() {
        (start, tail) = ends(file, size, MAX_RENDERED_BYTES)?;
    }
    match memchr::memrchr(b'\n', &tail) {
        Some(at) => Ok(start.saturating_add(at as u64).saturating_add(1)),
        None if size == 0 => Ok(0),
        None if start == 0 && is_ours(&tail) => Ok(0),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is there already and does not end with a line",
        )),
    }
}

/// At most `bytes` and one more of the file's end, and where they begin.
fn ends(file: &File, size: u64, bytes: usize) -> io::Result<(u64, Vec<u8>)> {
    let length = size.min(bytes as u64 + 1);
    let mut tail = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let start = size.saturating_sub(length);
    file.read_exact_at(&mut tail, start)?;
    Ok((start, tail))
}

/// Whether a file without a whole line begins as a record does, in a format that the sink may have had.
fn is_ours(tail: &[u8]) -> bool {
    Format::ALL
        .iter()
        .any(|format| tail.starts_with(beginning(*format).as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::audit::tests::scratch;

    #[test]
    fn lines_are_appended_to_what_is_there_and_a_torn_line_is_cut() {
        let dir = scratch("file-append");
        let path = dir.join("audit.jsonl");
        fs::write(&path, "one\ntor").unwrap();
        let mut sink = FileSink::open(path.to_str().unwrap(), None).unwrap();
        sink.deliver(b"two\n").unwrap();
        sink.deliver(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_first_record_that_is_torn_is_cut_in_any_format() {
        let dir = scratch("file-torn");
        for format in Format::ALL {
            let path = dir.join(format.to_string());
            fs::write(&path, format!("{}0\"torn", beginning(format))).unwrap();
            let mut sink = FileSink::open(path.to_str().unwrap(), None).unwrap();
            sink.deliver(b"one\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        }
    }

    #[test]
    fn a_file_that_is_not_ours_is_left_alone() {
        let dir = scratch("file-foreign");
        let path = dir.join("notes.txt");
        fs::write(&path, "a note without newline").unwrap();
        FileSink::open(path.to_str().unwrap(), None).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a note without newline");
    }

    #[test]
    fn in_a_pod_only_plain_names_are_taken() {
        let dir = scratch("file-names");
        for bad in ["", ".", "..", "../x", "/etc/passwd", "a/b"] {
            let error = FileSink::open(bad, Some(&dir)).unwrap_err();
            assert_eq!(error.reason(), "settings", "{bad}");
        }
        FileSink::open("audit.jsonl", Some(&dir)).unwrap();
    }

    #[test]
    fn two_processes_cannot_share_a_file() {
        let dir = scratch("file-lock");
        let _first = FileSink::open("audit.jsonl", Some(&dir)).unwrap();
        let second = FileSink::open("audit.jsonl", Some(&dir)).unwrap_err();
        assert!(second.to_string().contains("in use"), "{second}");
    }
}
