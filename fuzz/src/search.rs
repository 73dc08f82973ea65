//! Questions about records, as a client of the ledger asks them.

use chaperone_crds::{
    messages::{
        self,
        newest::{Found, Newest},
    },
    record::{HttpInfo, NewestInfo},
};
use chaperone_index::{
    facts::{Facts, Whose},
    query::{Query, parameters},
    terms,
};
use serde_json::Value;

use crate::{cuts, parts};

const STREAM: &str = "7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d";

/// The query part of a URL, and a record: what the index is asked is strings of letters and digits alone, so that no text can be read as syntax; and a record that is asked for has all of them, so that none is missed.
pub(crate) fn question(bytes: &[u8]) {
    let (query, line) = parts(bytes);
    let Ok(query) = std::str::from_utf8(query) else {
        return;
    };
    let Ok(pairs) = parameters(query) else {
        return;
    };
    let pairs = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let Ok(query) = Query::parse(pairs) else {
        return;
    };
    let asked = query.terms().unwrap_or_default();
    let asked: Vec<_> = asked
        .split(" AND ")
        .filter(|t| !t.is_empty())
        .map(plain)
        .collect();
    let record: Value = serde_json::from_slice(line).unwrap_or_default();
    let facts = Facts::of(&record);
    let [namespace, pod, service_account] = facts.agent.map(str::to_owned);
    let whose = Whose {
        namespace,
        pod,
        service_account,
    };
    let indexed = terms::of(&record, &facts, &whose, STREAM, Some(1));
    assert!(indexed.chars().all(|c| c == ' ' || c.is_alphanumeric()));
    if !query.asks_for(&record, &facts, &whose, STREAM) {
        return;
    }
    for (term, is_prefix) in asked {
        let has = indexed.split(' ').any(|found| match is_prefix {
            true => found.starts_with(term),
            false => found == term,
        });
        assert!(has, "{term} of {query:?} in {indexed}");
    }
}

/// A request to a model and its answer, of which a record may have the beginning: a beginning says no more blocks than the whole does. Of the request it may have the newest messages besides.
pub(crate) fn messages(bytes: &[u8]) {
    let (request, answer) = parts(bytes);
    newest(request);
    let (request, answer) = (
        String::from_utf8_lossy(request),
        String::from_utf8_lossy(answer),
    );
    let _ = messages::asked(&request);
    let whole = messages::answered(&answer).len();
    for beginning in cuts(request.len()).filter_map(|at| request.get(..at)) {
        let _ = messages::asked(beginning);
    }
    for at in cuts(answer.len()) {
        // Whole events alone: what follows a message in one piece, or a line of an event, may make it none.
        let beginning = answer.get(..at).and_then(whole_events);
        if let Some(beginning) = beginning.filter(|_| !answer.trim_start().starts_with('{')) {
            assert!(messages::answered(beginning).len() <= whole, "{beginning}");
        }
    }
}

/// The events that have ended.
fn whole_events(answer: &str) -> Option<&str> {
    const END: &str = "\n\n";
    answer.get(..answer.rfind(END)? + END.len())
}

/// Most bytes of messages that are kept, where some are to be too long and none.
const LIMITS: [usize; 2] = [24, 1 << 20];

/// However a request comes, the same messages are kept of it; and of one that is JSON, what they say is what a parser of the whole request finds.
fn newest(request: &[u8]) {
    for limit in LIMITS {
        let whole = found(&[request], limit);
        for at in cuts(request.len()) {
            let (begin, end) = request.split_at(at);
            assert_eq!(found(&[begin, end], limit), whole, "cut at {at}");
        }
        let Some(whole) = whole else { continue };
        assert!(
            whole.text.len() <= limit && whole.at < whole.end,
            "{whole:?}"
        );
        let is_cut = whole.truncated;
        let told = told(whole);
        if let Ok(request) = std::str::from_utf8(request)
            && serde_json::from_str::<Value>(request).is_ok()
            && !is_cut
        {
            assert_eq!(Some(messages::asked(request)), told);
        }
    }
}

fn found(pieces: &[&[u8]], limit: usize) -> Option<Found> {
    let mut newest = Newest::new(limit);
    pieces.iter().for_each(|piece| newest.push(piece));
    newest.finish()
}

/// What a record of these messages says.
fn told(found: Found) -> Option<Result<Vec<messages::Said>, messages::Cut>> {
    let newest = NewestInfo {
        text: Some(found.text),
        at: found.at,
        truncated: found.truncated,
    };
    messages::asked_in(&HttpInfo {
        newest_messages: Some(newest),
        ..HttpInfo::default()
    })
}

/// A term without what FTS5 reads around it, and whether it may go on.
fn plain(term: &str) -> (&str, bool) {
    let string = term.strip_suffix(" *");
    let inner = string
        .unwrap_or(term)
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .expect("a term is a string");
    assert!(
        !inner.is_empty() && inner.chars().all(char::is_alphanumeric),
        "{term}"
    );
    (inner, string.is_some())
}
