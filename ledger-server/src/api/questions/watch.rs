//! Waiting for new records.

use std::time::{Duration, Instant};

use chaperone_index::{
    query::Query,
    store::{Answer, Found, Scope},
};
use serde::Deserialize;
use tokio::time::sleep;

use super::{Question, Told, Words, limits, malformed, read};
use crate::{api::Api, authenticate::Sight, refusal::Refusal};

/// The parameter: how many seconds an answer may wait for records.
const WAIT: &str = "wait";
/// Most of them, and how long a look of the console waits.
const MOST_SECONDS: u64 = 30;
const LOOK_SECONDS: u64 = 25;
/// How often it is looked while somebody waits.
const STEP: Duration = Duration::from_secs(1);
/// Most new records of an answer to the console.
const LOOK_RECORDS: &str = "100";
/// The kind of records of reading. Each look makes one: who waits is not woken by them, unless they were asked for.
const READING: &str = "ledger.read";

impl Api {
    /// Records that the index took in at leaf `after` or later, the newest first, once there are some; none when nothing came in time.
    pub(crate) async fn watch(
        &self,
        token: &str,
        mut words: Words,
        after: u64,
    ) -> Result<Told<Vec<Found>>, Refusal> {
        for (name, value) in [
            ("order", "desc"),
            ("limit", LOOK_RECORDS),
            ("from", &after.to_string()),
        ] {
            words.insert(name.to_owned(), value.to_owned());
        }
        self.wait(token, words, Duration::from_secs(LOOK_SECONDS))
            .await
    }

    /// Records that have all that the words say, once there are some; none when there were none for so long.
    pub(super) async fn wait(
        &self,
        token: &str,
        words: Words,
        most: Duration,
    ) -> Result<Told<Vec<Found>>, Refusal> {
        let query = read(&words)?;
        let sight = Sight::LIST_RECORDS;
        let namespace = words.get("namespace").cloned();
        let reader = self
            .may(token, sight, "records", namespace.as_deref())
            .await?;
        let _waits = self.reads.waits()?;
        let answer = self.found(&query, Instant::now() + most).await?;
        let question = Question {
            room: self.reads.room()?,
            reader,
            namespace,
            what: "records",
            words,
        };
        self.tell(question, answer).await
    }

    /// The first answer that has records or where to go on, else the one that is made when it is time.
    async fn found(&self, query: &Query, until: Instant) -> Result<Answer, Refusal> {
        let wants_reading = query.kind.as_deref() == Some(READING);
        let mut looked = None;
        loop {
            let committed = self.search.committed();
            let is_over = Instant::now() >= until;
            if is_over || looked != Some(committed) {
                let (query, limits) = (query.clone(), limits());
                let mut answer = self
                    .search
                    .ask(move |reader| reader.search(&query, &Scope::All, limits))
                    .await?;
                if !wants_reading {
                    answer.found.retain(|found| !is_reading(&found.line));
                }
                if is_over || !answer.found.is_empty() || answer.cursor.is_some() {
                    return Ok(answer);
                }
                // The index comes after the records.
                looked = (answer.indexed >= committed).then_some(committed);
            }
            sleep(STEP).await;
        }
    }
}

/// Takes from the words how long the answer may wait.
pub(super) fn patience(words: &mut Words) -> Result<Option<Duration>, Refusal> {
    let Some(text) = words.remove(WAIT) else {
        return Ok(None);
    };
    let seconds = text.parse().ok().filter(|s| (1..=MOST_SECONDS).contains(s));
    let seconds = seconds.ok_or_else(|| {
        malformed(format!(
            "{WAIT} is a number of seconds from 1 to {MOST_SECONDS}, not {text:?}"
        ))
    })?;
    Ok(Some(Duration::from_secs(seconds)))
}

fn is_reading(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    serde_json::from_slice::<Kind>(line).is_ok_and(|record| record.kind == READING)
}
