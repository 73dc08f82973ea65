//! Splunk, by its HTTP Event Collector.
//!
//! Contract: a batch is acknowledged once Splunk says that it is indexed (indexer acknowledgement: the collector gives each batch a number on a channel, and is asked for it until it says true), or with
//! `acknowledge: false` once the collector has it. Splunk knows no key of an event, so a batch that comes again is there twice: the indexed fields `chaperone_stream` and `chaperone_seq` tell copies.

mod answer;
mod event;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chaperone_sinks::{
    Endpoint, backoff::random, client::HttpClient, content::gzip, settings::Splunk, tls::HTTP1,
};
use hyper::{
    Method, Uri,
    header::{HeaderName, HeaderValue},
};
use tokio::time::{Instant, sleep};

use super::{
    Maker,
    request::{authorization, below, gzipped, plain},
};
use crate::sinks::target::{Answer, Failure, Outgoing, Sending, Target, Then};
use answer::Taken;

/// Which channel a request is on.
const CHANNEL: HeaderName = HeaderName::from_static("x-splunk-request-channel");
/// How long Splunk may take to index a batch; then it is sent again.
const INDEX_TIMEOUT: Duration = Duration::from_secs(45);
/// How long to wait before the first question for an acknowledgement, and the longest between two.
const FIRST_ASK: Duration = Duration::from_millis(100);
const LAST_ASK: Duration = Duration::from_secs(2);

/// A collector and by what it knows us.
pub(super) struct SplunkTarget {
    client: HttpClient,
    settings: Splunk,
    authorization: HeaderValue,
    /// Ours alone, for as long as the target lives.
    channel: HeaderValue,
    events: Uri,
    acks: Uri,
}

impl SplunkTarget {
    /// Reads the settings.
    pub(super) fn new(settings: &Splunk, maker: &Maker) -> Result<Self, Failure> {
        let endpoint = Endpoint::parse(&settings.url)?;
        let tls = match endpoint.is_tls {
            true => Some(Arc::new(settings.tls.client_config(Some(HTTP1))?)),
            false => None,
        };
        Ok(Self {
            authorization: authorization(&settings.authorization.0)?,
            channel: channel(&uuid([random(), random(), random(), random()]))?,
            events: below(&endpoint, "services/collector/event")?,
            acks: below(&endpoint, "services/collector/ack")?,
            client: HttpClient::new(endpoint, tls, maker.net.clone(), &maker.version)?,
            settings: settings.clone(),
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        let body = event::body(batch, &self.settings);
        let body = gzip(&body).map_err(|e| Failure::soon("write", e))?;
        let (path, authorization) = (self.events.clone(), Some(&self.authorization));
        let mut request = gzipped(path, "application/json", body, authorization);
        if self.settings.acknowledge {
            request.headers_mut().insert(CHANNEL, self.channel.clone());
        }
        let response = self.client.exchange(request).await?;
        match answer::taken(response)? {
            Taken { .. } if !self.settings.acknowledge => Ok(Answer::default()),
            Taken { ack: Some(ack) } => self.indexed(ack).await,
            Taken { ack: None } => {
                let why = "the collector takes events without acknowledgement: enable indexer acknowledgement for the token, or set acknowledge: false";
                Err(Failure::new(Then::Rarely, "settings", why))
            }
        }
    }

    /// Asks until the batch of this number is indexed.
    async fn indexed(&mut self, ack: u64) -> Result<Answer, Failure> {
        let until = Instant::now() + INDEX_TIMEOUT;
        let mut wait = FIRST_ASK;
        while Instant::now() + wait < until {
            sleep(wait).await;
            wait = (wait * 2).min(LAST_ASK);
            let question = Bytes::from(format!("{{\"acks\":[{ack}]}}"));
            let (path, authorization) = (self.acks.clone(), Some(&self.authorization));
            let mut request = plain(Method::POST, path, question, authorization);
            request.headers_mut().insert(CHANNEL, self.channel.clone());
            let response = self.client.exchange(request).await?;
            if answer::is_indexed(response, ack)? {
                return Ok(Answer::default());
            }
        }
        let why = format!("no acknowledgement within {} s", INDEX_TIMEOUT.as_secs());
        Err(Failure::soon("timeout", why))
    }
}

impl Target for SplunkTarget {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch))
    }
}

/// A random UUID (RFC 9562, version 4), in capitals as Splunk has them.
fn uuid(random: [u32; 4]) -> String {
    let [a, b, c, d] = random;
    let (b, c) = (b & 0xffff_0fff | 0x4000, c & 0x3fff_ffff | 0x8000_0000);
    let (b_high, b_low) = (b >> 16, b & 0xffff);
    let (c_high, c_low) = (c >> 16, c & 0xffff);
    format!("{a:08X}-{b_high:04X}-{b_low:04X}-{c_high:04X}-{c_low:04X}{d:08X}")
}

fn channel(value: &str) -> Result<HeaderValue, Failure> {
    let why = |_| Failure::new(Then::Rarely, "settings", "the channel is no header value");
    HeaderValue::from_str(value).map_err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_a_uuid_of_version_4() {
        let ones = uuid([u32::MAX; 4]);
        assert_eq!(ones, "FFFFFFFF-FFFF-4FFF-BFFF-FFFFFFFFFFFF");
        assert_eq!(uuid([0; 4]), "00000000-0000-4000-8000-000000000000");
    }
}
