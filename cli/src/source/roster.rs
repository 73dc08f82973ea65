//! Which pods leave no evidence, as the records of a ledger's directory have it: the ledger's own fold over them, at the time of the newest.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use chaperone_crds::{chain::StreamId, head::Head};
use chaperone_ledger::{
    follow::{Cursor, Follower, end_of},
    gaps::{Answer, Reason, Roster, Scope, TOLD_FOR},
    store::Kept,
};
use jiff::Timestamp;

use super::{Words, directory::origin};

pub(super) fn gaps(dir: &Path, words: &Words) -> anyhow::Result<Answer> {
    let words: BTreeMap<_, _> = words
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    let own = StreamId::of_ledger(&origin(dir)?);
    let end = end_of(dir)?;
    let (mut roster, mut newest) = (Roster::default(), Timestamp::MIN);
    let mut follower = Follower::new(dir, Cursor::START);
    while let Some(record) = follower.next(end)? {
        let leaf = record.leaf;
        if let Some(deleted) = record.deleted {
            let kept = Kept {
                stream: &deleted.stream,
                seq: deleted.seq,
                time: "",
                closes: false,
                line: b"",
            };
            roster.replay(&own, kept);
            continue;
        }
        let head = Head::parse(record.line).with_context(|| format!("leaf {leaf} is no record"))?;
        newest = newest.max(head.time.parse().unwrap_or(Timestamp::MIN));
        let kept = Kept {
            stream: &head.stream,
            seq: head.seq,
            time: &head.time,
            closes: head.place.closes(),
            line: record.line,
        };
        roster.replay(&own, kept);
    }
    let usual = newest.checked_sub(TOLD_FOR).unwrap_or(Timestamp::MIN);
    let since = words.get("since").map(|time| time.parse());
    let scope = Scope {
        namespace: words.get("namespace").copied(),
        ended_since: since
            .transpose()
            .context("--since is no time")?
            .unwrap_or(usual),
    };
    let mut answer = roster.answer(&scope, None, newest);
    if let Some(reason) = words.get("reason").and_then(|word| Reason::of(word)) {
        answer.gaps.retain(|gap| gap.reason == reason);
    }
    Ok(answer)
}
