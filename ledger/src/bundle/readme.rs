//! What a bundle says of itself to people.

use super::{Exported, Identity};
use crate::checkpoint::Checkpoint;

/// The text of its README.md.
pub(super) fn text(identity: &Identity, head: &Checkpoint, exported: Exported) -> String {
    let Exported {
        records, withheld, ..
    } = exported;
    let (origin, subject) = (&identity.origin, shown(&identity.subject.to_string()));
    let (size, root) = (head.size, head.root);
    format!(
        "# Evidence: {subject}

{records} records of the ledger `{origin}`, as they were when it signed its first {size} records. {withheld} further records of the same streams lie between them; of those only the hashes are here.

| file | what it is |
|---|---|
| `records.jsonl` | the records, a line each, byte for byte as the sidecar wrote them |
| `leaves.txt` | for each record here or between: its number in the ledger, and its leaf: `chaperone-record/1 STREAM NUMBER SHA-256` |
| `about.jsonl`, `about.txt` | records that say what these are about, and their leaves: the opening of each stream, the policies of each revision that a decision names (`config`, with their text where the record has it), and whose the stream is by the ledger's own word (`stream.identity`) |
| `checkpoint` | the signed head of the ledger's tree (C2SP tlog-checkpoint): {size} leaves, root `{root}` |
| `tile/…` | the hashes that lead from the leaves to the root (C2SP tlog-tiles) |
| `ledger.vkey` | the keys that it was exported with. **Take the ledger's key from somewhere else**: whoever made this folder could have put any key here |

## How to prove it

```sh
chaperone verify THIS-FOLDER --key ledger.example/prod+…     # the ledger's public key, from a source that you trust
```

It says whether the checkpoint is signed by that key, whether each leaf is in the tree that it signs, whether each record is its leaf's, and whether in each stream every number between the first and the last is there.

By hand: the SHA-256 of a line of `records.jsonl`, without its newline, stands in its leaf; `prev` of a record is the SHA-256 of the one before it in its stream. The leaf hash is SHA-256(0x00 ‖ leaf); hashes of the tree
are SHA-256(0x01 ‖ left ‖ right), as in RFC 6962; `tile/0/…` are leaf hashes, 256 to a tile, `tile/1/…` the roots of those, and so on.

## What it does not show

- That nothing belongs to {subject} before the first and after the last record here, in other streams, or in records after the checkpoint.
- That the ledger shows everyone the same history. Compare the checkpoint with one that was kept elsewhere, or ask for one with signatures of witnesses.
- What the agent itself claims, such as a session's name, is claimed and not proved.
"
    )
}

/// A name that an agent chose, as one word of Markdown.
fn shown(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || " -_.:".contains(c) => c,
            _ => '?',
        })
        .take(200)
        .collect()
}
