//! Grafana Loki, by its push API.
//!
//! Contract: a request is acknowledged by 204 and by nothing else. An entry's labels, time and line are the record's own, so what comes again is the same entry, which Loki drops or shows once. What Loki refuses for an entry's
//! time or length is refused for good, by name. Invariant: an answer of 400 acknowledges no entry of its request, although Loki may have most of them by then, unless it says of the one stream in it how many it did not take.

mod answer;
mod part;
mod push;

use std::{collections::VecDeque, sync::Arc};

use chaperone_sinks::{Endpoint, client::HttpClient, content::gzip, settings::Loki, tls::HTTP1};
use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};
use jiff::Timestamp;

use super::{
    Maker,
    request::{authorization, below, gzipped},
};
use crate::sinks::target::{Answer, Failure, Outgoing, Sending, Target, Then};
use part::{After, Part, places};

/// Whose entries they are.
const TENANT: HeaderName = HeaderName::from_static("x-scope-orgid");
/// Most requests for one batch: it may have a stream for each record, and some answers take only a few entries out. What is left then comes again.
const MOST_REQUESTS: usize = 100_000;

/// A Loki and by what it knows us.
pub(super) struct LokiTarget {
    client: HttpClient,
    settings: Loki,
    authorization: Option<HeaderValue>,
    tenant: Option<HeaderValue>,
    path: Uri,
    /// It takes the entries of a stream in the order of time only (before 2.4, or `unordered_writes: false`): each stream has a request of its own, so that each answer says what was not taken.
    is_strict: bool,
}

impl LokiTarget {
    /// Reads the settings.
    pub(super) fn new(settings: &Loki, maker: &Maker) -> Result<Self, Failure> {
        let endpoint = Endpoint::parse(&settings.url)?;
        let tls = match endpoint.is_tls {
            true => Some(Arc::new(settings.tls.client_config(Some(HTTP1))?)),
            false => None,
        };
        let credential = settings.authorization.as_ref();
        let authorization = credential
            .map(|value| authorization(&value.0))
            .transpose()?;
        let tenant = settings.tenant.as_deref().map(HeaderValue::from_str);
        let why = |_| Failure::new(Then::Rarely, "settings", "the tenant is no header value");
        Ok(Self {
            authorization,
            tenant: tenant.transpose().map_err(why)?,
            path: below(&endpoint, "loki/api/v1/push")?,
            client: HttpClient::new(endpoint, tls, maker.net.clone(), &maker.version)?,
            settings: settings.clone(),
            is_strict: false,
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing], has_leaves: bool) -> Result<Answer, Failure> {
        let whole = Part::new(batch, Timestamp::now());
        let mut parts: VecDeque<Part> = match self.is_strict {
            true => whole.alone().into(),
            false => [whole].into(),
        };
        let mut answer = Answer::default();
        for _ in 0..MOST_REQUESTS {
            let Some(part) = parts.pop_front() else {
                break;
            };
            match self.settle(&part, batch, has_leaves).await {
                Ok((after, why)) => {
                    let unfit = after.unfit.into_iter();
                    answer.unfit.extend(unfit.map(|place| (place, why.clone())));
                    let then = after.then.into_iter().rev();
                    then.for_each(|part| parts.push_front(part));
                }
                Err(failure) => {
                    parts.push_front(part);
                    if places(&parts).len() == batch.len() {
                        return Err(failure);
                    }
                    break;
                }
            }
        }
        answer.again = places(&parts);
        Ok(answer)
    }

    /// Sends a part. What follows, and why.
    async fn settle(
        &mut self,
        part: &Part,
        batch: &[Outgoing],
        has_leaves: bool,
    ) -> Result<(After, String), Failure> {
        let body = push::body(part, batch, &self.settings, has_leaves);
        let body = gzip(&body).map_err(|e| Failure::soon("write", e))?;
        let (path, authorization) = (self.path.clone(), self.authorization.as_ref());
        let mut request = gzipped(path, "application/json", body, authorization);
        if let Some(tenant) = &self.tenant {
            request.headers_mut().insert(TENANT, tenant.clone());
        }
        let said = answer::read(self.client.exchange(request).await?)?;
        self.is_strict |= said.is_strict();
        let after = part.after(&said, batch);
        let why = said.into_why();
        match after {
            Some(after) => Ok((after, why)),
            // Halved, until what is at fault stands alone.
            None => Err(Failure::new(Then::Refused, "refused", why)),
        }
    }
}

impl Target for LokiTarget {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch, true))
    }

    fn test<'a>(&'a mut self, record: &'a Outgoing) -> Sending<'a> {
        Box::pin(self.deliver(std::slice::from_ref(record), false))
    }
}

#[cfg(test)]
mod tests;
