//! What is wrong with one pod: a function of what is known of it, and the time.

use chaperone_crds::chain::StreamId;
use jiff::Timestamp;

use super::{
    BEGIN_WITHIN, Gap, LAST_WITHIN, Reason, SILENT_AFTER,
    roster::{Pod, Stream},
};

/// A pod and its streams.
pub(super) struct Evidence<'a> {
    pub(super) uid: &'a str,
    pub(super) pod: &'a Pod,
    pub(super) streams: Vec<(&'a StreamId, &'a Stream)>,
    /// The ledger could not hear until then.
    pub(super) deaf_until: Timestamp,
}

pub(super) fn judge(evidence: &Evidence<'_>, now: Timestamp) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = evidence.without_stream(now).into_iter().collect();
    for (place, (id, stream)) in evidence.streams.iter().enumerate() {
        let is_newest = place.saturating_add(1) == evidence.streams.len();
        gaps.extend(evidence.hole(id, stream));
        gaps.extend(evidence.end(id, stream, is_newest, now));
    }
    gaps
}

impl Evidence<'_> {
    fn without_stream(&self, now: Timestamp) -> Option<Gap> {
        let ran = self.pod.ran.as_ref()?;
        if !self.streams.is_empty() {
            return None;
        }
        let gap = |reason: Reason, detail: &str| self.gap(reason, detail.to_owned(), ran.since);
        match ran.lacks {
            Some(reason @ Reason::NoSidecar) => Some(gap(
                reason,
                "it runs without Chaperone's sidecar: nothing of it is recorded",
            )),
            Some(reason @ Reason::NoToken) => {
                Some(gap(reason, "its sidecar has no token for the ledger"))
            }
            Some(reason) => Some(gap(
                reason,
                "its service account is exempt: it runs without sidecar",
            )),
            None => {
                let ended = self.pod.ended.as_ref();
                let is_late = match ended {
                    Some(ended) => passed(ended.seen, LAST_WITHIN, now),
                    None => passed(ran.seen.max(self.deaf_until), BEGIN_WITHIN, now),
                };
                is_late.then(|| gap(Reason::NoStream, "no record of it has arrived"))
            }
        }
    }

    /// One gap for all holes of a stream: the first is named.
    fn hole(&self, id: &StreamId, stream: &Stream) -> Option<Gap> {
        let (missing, found) = stream.holes.first()?;
        let records: u64 = stream
            .holes
            .iter()
            .map(|(hole, _)| hole.before.saturating_sub(hole.from))
            .fold(0, u64::saturating_add);
        let where_ = match (missing.from, stream.holes.len()) {
            (0, 1) => format!(
                "before record {}, with which it begins here",
                missing.before
            ),
            (from, 1) => format!("from record {from} up to {}", missing.before),
            (from, holes) => format!("in {holes} places, the first at record {from}"),
        };
        let mut gap = self.about(
            Reason::Hole,
            format!("{records} records are missing {where_}"),
            *found,
            (id, stream),
        );
        gap.missing = Some(*missing);
        Some(gap)
    }

    /// How the stream ends, or does not.
    fn end(&self, id: &StreamId, stream: &Stream, is_newest: bool, now: Timestamp) -> Option<Gap> {
        let heard = stream.heard.max(self.deaf_until);
        let last = stream.last.unwrap_or(stream.heard);
        let gap = |reason, detail: String| Some(self.about(reason, detail, last, (id, stream)));
        let next = stream.next;
        if let Some(ended) = &self.pod.ended {
            // Nothing is under way any more, whether or not the ledger could hear: its sidecar is gone.
            let is_late =
                passed(ended.seen, LAST_WITHIN, now) && passed(stream.heard, LAST_WITHIN, now);
            let what = "the pod has ended, and its stream was not closed";
            return match is_late && !stream.is_closed {
                true => gap(
                    Reason::Unclosed,
                    format!(
                        "{what}: nothing is known of what came after record {}",
                        before(next)
                    ),
                ),
                false => None,
            };
        }
        if !is_newest {
            let what = "another stream of the pod began before this one was closed";
            return match stream.is_closed {
                true => None,
                false => gap(Reason::Unclosed, what.to_owned()),
            };
        }
        let is_silent = passed(heard, SILENT_AFTER, now);
        match (is_silent, stream.is_closed) {
            (false, _) => None,
            (true, false) => gap(
                Reason::Silent,
                format!(
                    "nothing has come after record {}, not even a heartbeat",
                    before(next)
                ),
            ),
            // A pod that was only known by its stream may have ended long ago.
            (true, true) if self.pod.ran.is_none() => None,
            (true, true) => gap(
                Reason::Silent,
                "its stream was closed, the pod runs on, and no other stream has begun".to_owned(),
            ),
        }
    }

    fn about(
        &self,
        reason: Reason,
        detail: String,
        since: Timestamp,
        (id, stream): (&StreamId, &Stream),
    ) -> Gap {
        Gap {
            stream: Some(id.to_string()),
            last_record: stream.last,
            next_seq: Some(stream.next),
            ..self.gap(reason, detail, since)
        }
    }

    fn gap(&self, reason: Reason, detail: String, since: Timestamp) -> Gap {
        let pod = self.pod;
        Gap {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            uid: self.uid.to_owned(),
            node: pod.node.clone(),
            reason,
            detail,
            advice: reason.advice().to_owned(),
            since,
            ended: pod.ended.as_ref().map(|ended| ended.at),
            stream: None,
            last_record: None,
            next_seq: None,
            missing: None,
        }
    }
}

/// Whether so long has passed since then.
fn passed(then: Timestamp, how_long: jiff::SignedDuration, now: Timestamp) -> bool {
    now.duration_since(then) > how_long
}

fn before(next: u64) -> u64 {
    next.saturating_sub(1)
}
