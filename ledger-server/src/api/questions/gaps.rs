//! Which pods leave no evidence, or not all of it: docs/completeness.md has the answer for users.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
};
use chaperone_ledger::gaps::{Answer, Reason, Scope, TOLD_FOR};
use chaperone_server::reviews::bearer;
use jiff::Timestamp;

use super::{Api, Told, Words, malformed, only, words};
use crate::{authenticate::Sight, metrics::Route, refusal::Refusal};

/// A question, read.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    namespace: Option<String>,
    reason: Option<Reason>,
    ended_since: Timestamp,
}

pub(in crate::api) async fn gaps(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let ask = async {
        let told = api
            .gaps(bearer(&headers)?, words(query.as_deref())?)
            .await?;
        let text = serde_json::to_string(&told.answer).expect("texts, times and numbers serialise");
        Ok(told.respond(text, "application/json"))
    };
    api.respond(Route::Gaps, ask.await)
}

impl Api {
    /// Pods whose evidence is missing; of the words `namespace`, `reason` and `since` may be there.
    pub(crate) async fn gaps(&self, token: &str, words: Words) -> Result<Told<Answer>, Refusal> {
        let asked = Asked::read(&words, Timestamp::now())?;
        let question = self
            .question(token, Sight::LIST_GAPS, "gaps", words)
            .await?;
        let answer = asked.of(self.gaps.answer(&asked.scope()));
        self.enter(&question, answer.gaps.len() as u64).await?;
        // It is an answer about the whole log, and needs no index.
        let extent = self.extent(self.search.committed(), None);
        Ok(question.told(answer, extent))
    }
}

impl Asked {
    fn read(words: &Words, now: Timestamp) -> Result<Self, Refusal> {
        only(words, &["namespace", "reason", "since"])?;
        let since = words.get("since").map(|text| text.parse());
        let since = since.transpose();
        let since = since.map_err(|_| malformed("since is a time such as 2026-11-29T10:00:00Z"))?;
        let reason = words.get("reason").map(|word| {
            let all = Reason::ALL.map(Reason::as_str).join(", ");
            Reason::of(word).ok_or_else(|| malformed(format!("reason is one of {all}")))
        });
        let usual = now.checked_sub(TOLD_FOR).unwrap_or(Timestamp::MIN);
        Ok(Self {
            namespace: words.get("namespace").cloned(),
            reason: reason.transpose()?,
            ended_since: since.unwrap_or(usual),
        })
    }

    fn scope(&self) -> Scope<'_> {
        Scope {
            namespace: self.namespace.as_deref(),
            ended_since: self.ended_since,
        }
    }

    fn of(&self, mut answer: Answer) -> Answer {
        if let Some(reason) = self.reason {
            answer.gaps.retain(|gap| gap.reason == reason);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_whose_since_when_and_why() {
        let now: Timestamp = "2026-11-29T10:00:00Z".parse().unwrap();
        let read = |query: &str| Asked::read(&words(Some(query)).unwrap(), now);
        let usual = read("").unwrap();
        assert_eq!(usual.ended_since.to_string(), "2026-11-22T10:00:00Z");
        let asked = read("namespace=agents&reason=silent&since=2026-11-01T00:00:00Z").unwrap();
        assert_eq!(asked.reason, Some(Reason::Silent));
        assert_eq!(asked.scope().namespace, Some("agents"));
        for wrong in ["reason=x", "since=yesterday", "limit=1", "namespace=a&x=y"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
