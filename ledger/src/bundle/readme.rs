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
        r#"# Evidence: {subject}

{records} records of the ledger `{origin}`, as they were when it signed its first {size} records. {withheld} further records of the same streams lie between them; of those only the hashes are here.

| file | what it is |
|---|---|
| `records.jsonl` | the records, a line each, byte for byte as the sidecar wrote them; where texts of bodies (`bodies`) were deleted since, without them |
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

By hand: the hash of a record is the SHA-256 of its line in `records.jsonl`, without its newline and without `bodies`, the texts that may be deleted, which stand last. It is the last word of its leaf, and the `prev` of the next record of its stream. This shows of each record here whether it has a leaf:

```sh
LC_ALL=C sed -E 's/(,"bodiesSha256":"[0-9a-f]{{64}}"),"bodies":\{{"salt":.*\}}$/\1}}/' records.jsonl |
while IFS= read -r record; do
  hash=$(printf '%s' "$record" | sha256sum | cut -c1-64)
  if grep -q " $hash\$" leaves.txt; then echo "$hash is in leaves.txt"; else echo "$hash IS IN NO LEAF"; fi
done
```

Texts that are there are those of the record if their SHA-256 is its `bodiesSha256`:

```sh
LC_ALL=C sed -nE 's/^.*,"bodiesSha256":"([0-9a-f]{{64}})","bodies":(\{{"salt":.*\}})\}}$/\1 \2/p' records.jsonl |
while IFS= read -r record; do
  hash=$(printf '%s' "${{record#* }}" | sha256sum | cut -c1-64)
  if [ "$hash" = "${{record%% *}}" ]; then echo "texts of $hash are as they were"; else echo "TEXTS OF ${{record%% *}} ARE OTHERS"; fi
done
```

The leaf hash is SHA-256(0x00 ‖ leaf); hashes of the tree
are SHA-256(0x01 ‖ left ‖ right), as in RFC 6962; `tile/0/…` are leaf hashes, 256 to a tile, `tile/1/…` the roots of those, and so on.

## What it does not show

- That nothing belongs to {subject} before the first and after the last record here, in other streams, or in records after the checkpoint.
- That the ledger shows everyone the same history. Compare the checkpoint with one that was kept elsewhere, or ask for one with signatures of witnesses.
- What the agent itself claims, such as a session's name, is claimed and not proved.
"#
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
