//! A sink tried: docs/sinks.md has it for users. The trial is on record before the marked record leaves.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use chaperone_crds::record::ReadInfo;
use chaperone_server::reviews::bearer;
use chaperone_sinks::settings::is_name;

use super::{Api, Words, malformed};
use crate::{
    authenticate::Sight,
    metrics::Route,
    refusal::{Code, Refusal},
    sinks::{Outcome, TEST, Untried},
};

pub(in crate::api) async fn test(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let ask = async {
        let outcome = api.test_sink(bearer(&headers)?, &name).await?;
        Ok(Json(outcome).into_response())
    };
    api.respond(Route::SinkTest, ask.await)
}

impl Api {
    async fn test_sink(&self, token: &str, name: &str) -> Result<Outcome, Refusal> {
        if !is_name(name) {
            return Err(malformed("this is no name of an AuditSink"));
        }
        let words = Words::from([("sink".to_owned(), name.to_owned())]);
        let question = self.question(token, Sight::TEST_SINKS, TEST, words).await?;
        let sinks = self.sinks.as_ref().ok_or_else(no_such_sink)?;
        self.enter(&question, 0).await?;
        let read = ReadInfo {
            query: question.words.clone(),
            ..question.reader.info(TEST)
        };
        sinks
            .test(name, read)
            .await
            .map_err(|untried| match untried {
                Untried::NoSuchSink => no_such_sink(),
                Untried::Busy => Refusal::new(Code::Busy, "this sink is being tried"),
                Untried::Stopping => Refusal::new(Code::Stopping, "the ledger ends"),
            })
    }
}

fn no_such_sink() -> Refusal {
    let why = "the ledger delivers no sink of this name; what sidecars deliver (stdout, file, and http without from: Ledger) cannot be tried from here: look at chaperone_audit_sink_errors_total of the pods";
    Refusal::new(Code::NotFound, why)
}
