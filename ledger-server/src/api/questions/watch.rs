//! Waiting for new records.

use std::time::{Duration, Instant};

use chaperone_index::{
    query::Query,
    store::{Found, Scope},
};
use serde::Deserialize;
use tokio::time::sleep;

use super::{Question, Told, Words, limits, read};
use crate::{api::Api, authenticate::Sight, refusal::Refusal};

/// How long a look for new records waits for some, and how often it looks.
const WATCH: Duration = Duration::from_secs(25);
const WATCH_STEP: Duration = Duration::from_secs(1);
/// Most new records of an answer.
const WATCH_RECORDS: &str = "100";

impl Api {
    /// Records that the index took in at leaf `after` or later, the newest first, once there are some; none when nothing came in [`WATCH`]. Records of reading are left out: each look is one.
    pub(crate) async fn watch(
        &self,
        token: &str,
        mut words: Words,
        after: u64,
    ) -> Result<Told<Vec<Found>>, Refusal> {
        for (name, value) in [("order", "desc"), ("limit", WATCH_RECORDS)] {
            words.insert(name.to_owned(), value.to_owned());
        }
        let query = Query {
            from: after,
            ..read(&words)?
        };
        let sight = Sight::LIST_RECORDS;
        let namespace = words.get("namespace").cloned();
        let reader = self
            .may(token, sight, "records", namespace.as_deref())
            .await?;
        let _waits = self.reads.waits()?;
        let until = Instant::now() + WATCH;
        let mut looked = None;
        let answer = loop {
            let committed = self.search.committed();
            let is_over = Instant::now() >= until;
            if is_over || looked != Some(committed) {
                let (query, limits) = (query.clone(), limits());
                let mut answer = self
                    .search
                    .ask(move |reader| reader.search(&query, &Scope::All, limits))
                    .await?;
                answer.found.retain(|found| !is_reading(&found.line));
                if is_over || !answer.found.is_empty() {
                    break answer;
                }
                // The index comes after the records.
                looked = (answer.indexed >= committed).then_some(committed);
            }
            sleep(WATCH_STEP).await;
        };
        let question = Question {
            room: self.reads.room()?,
            reader,
            namespace,
            what: "records",
            words,
        };
        self.tell(question, answer).await
    }
}

fn is_reading(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    serde_json::from_slice::<Kind>(line).is_ok_and(|record| record.kind == "ledger.read")
}
