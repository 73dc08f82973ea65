//! `reqwest-peer URL VERSION`: what programs in Rust do with reqwest, over HTTP/1.1 or HTTP/2; prints what came of each, a line each.

use std::error::Error;

use futures::{StreamExt, future::join_all, stream};
use reqwest::{Body, Client, Version};
use tokio::sync::mpsc;

type Outcome = Result<String, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, version] = arguments.as_slice() else {
        return Err("usage: reqwest-peer URL 1|2".into());
    };
    let client = match version.as_str() {
        "1" => Client::builder().http1_only().build()?,
        _ => Client::builder().build()?,
    };
    for coding in ["identity", "gzip", "deflate", "br", "zstd"] {
        println!(
            "{coding}: {}",
            told(text(&client, &format!("{url}/coded?{coding}")).await)
        );
    }
    println!("streamed: {}", told(conversation(&client, url).await));
    println!("uploaded: {}", told(upload(&client, url).await));
    println!("at once: {}", told(at_once(&client, url).await));
    let denied = client.delete(format!("{url}/coded?gzip")).send().await?;
    println!("denied: {}", denied.status().as_u16());
    Ok(())
}

/// An error with all its causes, in one line.
fn told(outcome: Outcome) -> String {
    outcome.unwrap_or_else(|error| {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            words += &format!(": {error}");
            cause = error.source();
        }
        words
    })
}

async fn text(client: &Client, url: &str) -> Outcome {
    let answer = client.get(url).send().await?.error_for_status()?;
    let version = match answer.version() {
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        _ => "other",
    };
    Ok(format!("{version} {}", answer.text().await?.trim_end()))
}

/// Sends a piece only once the one before has come back: the answer is read while the request is written.
async fn conversation(client: &Client, url: &str) -> Outcome {
    let (say, pieces) = mpsc::channel::<String>(1);
    let pieces = stream::unfold(pieces, |mut pieces| async {
        pieces
            .recv()
            .await
            .map(|piece| (Ok::<_, std::io::Error>(piece), pieces))
    });
    say.send("first".to_owned()).await?;
    let request = client
        .post(format!("{url}/echo"))
        .body(Body::wrap_stream(pieces));
    let mut answer = request.send().await?.error_for_status()?.bytes_stream();
    let mut heard = Vec::new();
    for next in [Some("second"), Some("third"), None] {
        let piece = answer.next().await.ok_or("the answer ended early")??;
        heard.push(String::from_utf8_lossy(&piece).into_owned());
        if let Some(next) = next {
            say.send(next.to_owned()).await?;
        }
    }
    drop(say);
    while let Some(more) = answer.next().await {
        heard.push(String::from_utf8_lossy(&more?).into_owned());
    }
    Ok(heard.join(" ").trim_end().to_owned())
}

/// 16 MiB, of no known length, and what came back of it.
async fn upload(client: &Client, url: &str) -> Outcome {
    let pieces =
        stream::iter((0..256u32).map(|number| Ok::<_, std::io::Error>(vec![number as u8; 65536])));
    let request = client
        .post(format!("{url}/echo"))
        .body(Body::wrap_stream(pieces));
    let body = request.send().await?.error_for_status()?.bytes().await?;
    let same = body
        .chunks(65536)
        .zip(0..256u32)
        .all(|(piece, number)| piece.iter().all(|byte| *byte == number as u8));
    Ok(format!("{} {same}", body.len()))
}

/// Thirty requests at once, from one client.
async fn at_once(client: &Client, url: &str) -> Outcome {
    let url = format!("{url}/coded?gzip");
    let all = join_all((0..30).map(|_| text(client, &url))).await;
    let answers = all.into_iter().collect::<Result<Vec<_>, _>>()?;
    let same = answers.iter().all(|answer| answer == &answers[0]);
    Ok(format!("{} {same}", answers.len()))
}
