//! What of a copy has to change: pure judgement over what the database says and what is here.

use std::collections::{BTreeSet, HashMap};

/// A file as the database knows it, where it knows more than its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name in the ledger's directory.
    pub(super) file: String,
    /// The change by which it was last put anew.
    pub(super) version: u64,
    /// Where its bytes are, if not in the tables.
    pub(super) object: Option<Object>,
}

/// A file in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// Its name there.
    pub(super) name: String,
    /// Bytes of the file.
    pub(super) length: u64,
    /// Bytes of the object.
    pub(super) stored: u64,
    /// SHA-256 of the file.
    pub(super) sha256: [u8; 32],
}

/// What this copy knows of itself. One that has just begun believes nothing that is on its disk.
#[derive(Debug, Default)]
pub(super) struct Known {
    versions: HashMap<String, u64>,
    /// Files that were begun by bytes.
    begun: BTreeSet<String>,
}

/// What to do of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is what it was.
    Leave,
    /// It begins anew, without bytes.
    Empty,
    /// It is what the bucket has, unless it is that already.
    Fetch,
}

impl Known {
    /// Whether a file was put anew since this copy knows it: what it had may be gone from it.
    pub(super) fn is_anew(&self, entry: &Entry) -> bool {
        let known = self.versions.get(&entry.file).copied();
        known.unwrap_or_default() != entry.version
    }

    /// What to do of a file that the database has changed.
    pub(super) fn entry(&mut self, entry: &Entry) -> Step {
        let known = self.versions.insert(entry.file.clone(), entry.version);
        if entry.object.is_some() {
            self.begun.insert(entry.file.clone());
            return Step::Fetch;
        }
        if known == Some(entry.version) {
            return Step::Leave;
        }
        self.begun.insert(entry.file.clone());
        Step::Empty
    }

    /// Whether bytes of a file are its first ones: what is here of it goes.
    pub(super) fn part(&mut self, file: &str) -> bool {
        match self.begun.contains(file) {
            true => false,
            false => self.begun.insert(file.to_owned()),
        }
    }

    /// Whether the database has the file. Of a copy that is whole.
    pub(super) fn has(&self, file: &str) -> bool {
        self.versions.contains_key(file) || self.begun.contains(file)
    }
}

/// Number of a segment, by its name.
pub(super) fn segment(file: &str) -> Option<u64> {
    let name = file.strip_prefix("records/")?.strip_suffix(".jsonl")?;
    name.parse().ok()
}

/// Whether this is a file's name in a ledger's directory, and one that is shared: what comes from elsewhere names no other file of this machine.
pub(super) fn is_shared(file: &str) -> bool {
    let is_plain = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    match file.split_once('/') {
        Some((folder, name)) => FOLDERS.contains(&folder) && is_plain(name),
        None => FILES.contains(&file),
    }
}

/// Folders that are shared.
pub(super) const FOLDERS: [&str; 3] = ["records", "keys", "sinks"];
/// Files beside them.
pub(super) const FILES: [&str; 2] = ["checkpoint", "checkpoint.witnessed"];

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(file: &str, version: u64, is_object: bool) -> Entry {
        let object = is_object.then(|| Object {
            name: "o".to_owned(),
            length: 1,
            stored: 1,
            sha256: [0; 32],
        });
        Entry {
            file: file.to_owned(),
            version,
            object,
        }
    }

    #[test]
    fn a_file_begins_anew_when_it_was_put_anew_and_at_its_first_bytes_only() {
        let mut known = Known::default();
        assert!(known.part("records/0"));
        assert!(!known.part("records/0"));
        assert_eq!(known.entry(&entry("checkpoint", 3, false)), Step::Empty);
        assert!(!known.part("checkpoint"));
        assert!(!known.is_anew(&entry("checkpoint", 3, false)));
        assert_eq!(known.entry(&entry("checkpoint", 3, false)), Step::Leave);
        assert!(known.is_anew(&entry("checkpoint", 4, false)));
        assert_eq!(known.entry(&entry("checkpoint", 4, false)), Step::Empty);
        // Moved to the bucket, and put anew from there into the tables.
        assert!(!known.is_anew(&entry("records/0", 0, true)));
        assert_eq!(known.entry(&entry("records/0", 0, true)), Step::Fetch);
        assert!(known.is_anew(&entry("records/0", 9, true)));
        assert_eq!(known.entry(&entry("records/0", 9, true)), Step::Fetch);
        assert!(known.has("records/0") && !known.has("records/1"));
    }

    #[test]
    fn names_that_are_none_of_a_ledger_are_refused() {
        for name in [
            "records/00000000.jsonl",
            "keys/20261130.jsonl",
            "sinks/a.cursor",
            "checkpoint",
        ] {
            assert!(is_shared(name), "{name}");
        }
        let others = [
            "",
            "ledger.json",
            "/etc/passwd",
            "records/../x",
            "records/..",
            "records/",
            "records/.x",
            "tile/0/000",
            "records/a/b",
            "index.sqlite",
            "../checkpoint",
            "sinks/a b",
        ];
        for name in others {
            assert!(!is_shared(name), "{name}");
        }
    }
}
