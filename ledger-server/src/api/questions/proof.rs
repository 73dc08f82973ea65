//! The proof of a record.

use chaperone_ledger::proof::{self, NoProof};

use super::{Told, Words};
use crate::{
    api::Api,
    refusal::{Code, Refusal},
};

impl Api {
    /// The text that proves that a record is in the log. Recorded as the reading of the record, of which it has the place and no content.
    pub(crate) async fn proof(
        &self,
        token: &str,
        stream: &str,
        seq: &str,
        words: Words,
    ) -> Result<Told<String>, Refusal> {
        let told = self.record(token, stream, seq, words).await?;
        let (dir, leaf) = (self.dir.clone(), told.answer.leaf);
        let made = tokio::task::spawn_blocking(move || proof::of_ledger(&dir, leaf)).await;
        let text = match made {
            Ok(Ok(text)) => text,
            Ok(Err(why @ NoProof::NotYet { .. })) => {
                return Err(Refusal::new(Code::NotFound, why.to_string()));
            }
            other => {
                tracing::error!(?other, leaf, "a proof cannot be made");
                let why = "the proof cannot be made now";
                return Err(Refusal::new(Code::Storage, why));
            }
        };
        Ok(Told {
            answer: text,
            extent: told.extent,
            room: told.room,
        })
    }
}
