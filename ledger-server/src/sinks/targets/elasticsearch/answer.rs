//! What a bulk answer says of each record.

use serde::Deserialize;

use crate::sinks::target::{Answer, Failure, Then};

/// Longest reason that is kept of a record, in characters.
const REASON_CHARS: usize = 300;

#[derive(Deserialize)]
struct Bulk {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Created,
}

#[derive(Deserialize)]
struct Created {
    status: u16,
    error: Option<Refusal>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refusal {
    #[serde(rename = "type")]
    kind: String,
    reason: String,
}

/// What follows for one record.
enum Verdict {
    Taken,
    /// It must come again, at once or once somebody has changed something.
    Again(Then, &'static str),
    Refused,
}

/// Reads the answer to so many records. One that is not of the bulk API, or is about another number of records, says nothing of any.
pub(super) fn read(body: Option<&[u8]>, sent: usize) -> Result<Answer, Failure> {
    let Some(body) = body else {
        let then = if sent > 1 { Then::Fewer } else { Then::Rarely };
        return Err(Failure::new(
            then,
            "protocol",
            "the answer is too long to be read",
        ));
    };
    let bulk = serde_json::from_slice::<Bulk>(body).ok();
    let Some(bulk) = bulk.filter(|bulk| bulk.items.len() == sent) else {
        let why = "the endpoint answers with success, and not with what the bulk API answers: the url is another service's";
        return Err(Failure::new(Then::Rarely, "protocol", why));
    };
    judge(bulk.items)
}

fn judge(items: Vec<Item>) -> Result<Answer, Failure> {
    let mut answer = Answer::default();
    let mut failure: Option<Failure> = None;
    let count = items.len();
    for (place, Item { create }) in items.into_iter().enumerate() {
        match verdict(&create) {
            Verdict::Taken => {}
            Verdict::Refused => answer.refused.push((place, why(&create))),
            Verdict::Again(then, reason) => {
                answer.again.push(place);
                failure.get_or_insert_with(|| Failure::new(then, reason, why(&create)));
            }
        }
    }
    // A target that took none has failed, and why is what the first was told.
    match failure {
        Some(failure) if answer.again.len() == count => Err(failure),
        _ => Ok(answer),
    }
}

fn verdict(item: &Created) -> Verdict {
    let kind = item.error.as_ref().map_or("", |error| error.kind.as_str());
    match (item.status, kind) {
        (200..300, _) => Verdict::Taken,
        // A document of this ID is there: the record came before.
        (409, _) => Verdict::Taken,
        (429, _) => Verdict::Again(Then::Soon, "throttled"),
        // What is said of the index, and not of the document.
        (_, "index_closed_exception" | "invalid_index_name_exception") => {
            Verdict::Again(Then::Rarely, "settings")
        }
        (_, "cluster_block_exception") => Verdict::Again(Then::Soon, "server-error"),
        (404, _) => Verdict::Again(Then::Rarely, "settings"),
        (401 | 403, _) => Verdict::Again(Then::Rarely, "unauthorized"),
        (400 | 413, _) => Verdict::Refused,
        _ => Verdict::Again(Then::Soon, "server-error"),
    }
}

/// The index's words without the value that it could not take, which is the record's.
fn why(item: &Created) -> String {
    let unsaid = Refusal::default();
    let Refusal { kind, reason } = item.error.as_ref().unwrap_or(&unsaid);
    let words = reason
        .split(" Preview of field's value")
        .next()
        .unwrap_or_default();
    let words: String = words.chars().take(REASON_CHARS).collect();
    format!("{}: {kind}: {words}", item.status)
}

#[cfg(test)]
mod tests;
