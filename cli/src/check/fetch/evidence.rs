//! What the ledger says of evidence that is missing: two of its metrics, which take no token.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, ensure};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::time::timeout;

use super::control::{Refusal, Wire, connect};
use crate::check::view::Evidence;

/// Port of the ledger's metrics.
const METRICS_PORT: u16 = 8080;
/// How long it may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Most bytes of metrics.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// None where we may not look, or the ledger is of a version that does not say.
pub(super) async fn evidence(
    api: &Api<Pod>,
    pod: &Pod,
    in_cluster: bool,
) -> Option<Result<Evidence, String>> {
    let ask = async {
        let wire = connect(api, pod, in_cluster, METRICS_PORT).await?;
        metrics(wire).await.map_err(Refusal::from)
    };
    match timeout(ANSWER, ask).await {
        Ok(Ok(text)) => read(&text).map(Ok),
        Ok(Err(Refusal::Forbidden(_))) => None,
        Ok(Err(Refusal::Bad(why))) => Some(Err(format!("{why:#}"))),
        Err(_) => Some(Err(format!(
            "no answer on port {METRICS_PORT} in {ANSWER:?}"
        ))),
    }
}

async fn metrics(wire: Box<dyn Wire>) -> anyhow::Result<String> {
    let (mut requests, connection) = handshake(TokioIo::new(wire)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/metrics")
        .header("host", "ledger")
        .body(Empty::<Bytes>::new())?;
    let response = requests.send_request(request).await?;
    ensure!(
        response.status().is_success(),
        "its metrics answer {}",
        response.status()
    );
    let body = Limited::new(response.into_body(), MAX_BYTES)
        .collect()
        .await;
    connection.abort();
    let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
    String::from_utf8(body.to_vec()).context("its metrics are no text")
}

/// Prometheus' text format, of which two metrics matter.
fn read(text: &str) -> Option<Evidence> {
    let mut incomplete = BTreeMap::new();
    let mut is_watching = None;
    for line in text.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        if name == "chaperone_ledger_watching_pods" {
            is_watching = Some(value != "0");
        }
        let reason = name
            .strip_prefix("chaperone_ledger_incomplete_pods{reason=\"")
            .and_then(|rest| rest.strip_suffix("\"}"));
        if let (Some(reason), Ok(pods)) = (reason, value.parse()) {
            incomplete.insert(reason.to_owned(), pods);
        }
    }
    Some(Evidence {
        is_watching: is_watching?,
        incomplete,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_metrics_say_what_is_missing() {
        let text = "# TYPE chaperone_ledger_incomplete_pods gauge\nchaperone_ledger_incomplete_pods{reason=\"silent\"} 2\nchaperone_ledger_incomplete_pods{reason=\"hole\"} 0\n\
                    chaperone_ledger_incomplete_pods{reason=\"odd} x\nchaperone_ledger_watching_pods 1\nother 3\n";
        let evidence = read(text).unwrap();
        assert!(evidence.is_watching);
        let expected = [("hole".to_owned(), 0), ("silent".to_owned(), 2)];
        assert_eq!(evidence.incomplete, expected.into());
        assert!(
            !read("chaperone_ledger_watching_pods 0\n")
                .unwrap()
                .is_watching
        );
        assert_eq!(read("up 1\n"), None, "a ledger of another version");
    }
}
