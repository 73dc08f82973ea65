//! Where a ledger's records are read: from the ledger, or from its directory.
//!
//! Owns the flags that say which, and asking page after page. Refuses to give records without saying among how many they are: every answer is a [`Page`], which does.

mod directory;
mod published;
mod reach;
mod roster;
mod server;

use std::path::PathBuf;

use chaperone_index::{
    query::{MAX_LIMIT, encoded},
    store::SessionKind,
};
use chaperone_ledger::gaps::Answer;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};

use directory::Directory;
use server::Server;

use crate::{
    hold::{Asked, Erased, Hold, Holds, Why},
    sink::Outcome,
};

pub(crate) use published::{Published, PublishedArgs};
pub(crate) use reach::LedgerArgs;
pub(crate) use server::Answered;

/// Which ledger.
#[derive(clap::Args)]
pub(crate) struct SourceArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// The ledger's directory, or a copy of it, instead. It is only read, and may be in use.
    #[arg(long, value_name = "LEDGER", conflicts_with_all = ["ledger", "ca", "token_file", "service_account_token", "system_namespace"])]
    dir: Option<PathBuf>,
    /// Where the index of --dir is kept; it is made if it is not there. Default: a temporary file, gone at the end.
    #[arg(long, value_name = "FILE", requires = "dir")]
    index: Option<PathBuf>,
}

/// Names and values of a question, as the ledger's API has them.
pub(crate) type Words = Vec<(&'static str, String)>;

/// A session, as a person names it.
pub(crate) struct Named {
    pub(crate) id: String,
    pub(crate) namespace: Option<String>,
    pub(crate) kind: Option<SessionKind>,
}

/// A page of an answer.
pub(crate) struct Page {
    /// Leaf and line of each record.
    pub(crate) records: Vec<(u64, Vec<u8>)>,
    pub(crate) indexed: u64,
    pub(crate) committed: u64,
    pub(crate) cursor: Option<String>,
}

pub(crate) enum Source {
    Directory(Box<Directory>),
    Server(Box<Server>),
}

impl SourceArgs {
    /// Has the ledger reached, or its directory indexed.
    pub(crate) fn open(&self) -> anyhow::Result<Source> {
        Ok(match &self.dir {
            Some(dir) => {
                let index = self.index.as_deref();
                Source::Directory(Box::new(Directory::open(dir, index)?))
            }
            None => Source::Server(Box::new(self.server()?)),
        })
    }

    /// Whether a directory is meant.
    pub(crate) fn is_directory(&self) -> bool {
        self.dir.is_some()
    }

    /// Pods whose evidence is missing.
    pub(crate) fn gaps(&self, words: &Words) -> anyhow::Result<Answer> {
        match &self.dir {
            Some(dir) => roster::gaps(dir, words),
            None => self.server()?.gaps(words),
        }
    }

    fn server(&self) -> anyhow::Result<Server> {
        Server::connect(&self.ledger)
    }
}

/// The ledger that these flags mean, reached.
pub(crate) fn reached(ledger: &LedgerArgs) -> anyhow::Result<Source> {
    Ok(Source::Server(Box::new(Server::connect(ledger)?)))
}

/// What became of a marked record that the ledger sent to a sink.
pub(crate) fn test_sink(ledger: &LedgerArgs, name: &str) -> anyhow::Result<Outcome> {
    Server::connect(ledger)?.test_sink(name)
}

/// A legal hold, put.
pub(crate) fn hold(ledger: &LedgerArgs, hold: &Hold) -> anyhow::Result<Hold> {
    Server::connect(ledger)?.say(Method::POST, "/v1/holds", hold)
}

/// The legal holds.
pub(crate) fn holds(ledger: &LedgerArgs, namespace: Option<&str>) -> anyhow::Result<Holds> {
    Server::connect(ledger)?.holds(namespace)
}

/// A legal hold, ended.
pub(crate) fn release(ledger: &LedgerArgs, name: &str, why: &Why) -> anyhow::Result<Hold> {
    let path = format!("/v1/holds/{}", encoded(name));
    Server::connect(ledger)?.say(Method::DELETE, &path, why)
}

/// A session's content, deleted.
pub(crate) fn erase(ledger: &LedgerArgs, asked: &Asked) -> anyhow::Result<Erased> {
    Server::connect(ledger)?.say(Method::POST, "/v1/erasures", asked)
}

impl Source {
    /// A page of all records that the words ask for.
    pub(crate) fn records(&mut self, words: &Words) -> anyhow::Result<Page> {
        match self {
            Self::Directory(directory) => directory.records(words),
            Self::Server(server) => server.records(words),
        }
    }

    /// A page of a session's records.
    pub(crate) fn session(&mut self, session: &Named, words: &Words) -> anyhow::Result<Page> {
        match self {
            Self::Directory(directory) => directory.session(session, words),
            Self::Server(server) => server.session(session, words),
        }
    }
}

/// A time as the ledger reads it: what is a duration counts back from now, and anything else stands as it is.
pub(crate) fn time(text: &str, now: Timestamp) -> String {
    let ago = text.parse::<SignedDuration>().ok();
    let then = ago.filter(|ago| !ago.is_negative());
    match then.and_then(|ago| now.checked_sub(ago).ok()) {
        Some(then) => then.to_string(),
        None => text.to_owned(),
    }
}

/// Asks for pages and shows each record until there are `most`, or no more. The last page.
pub(crate) fn pages(
    words: &Words,
    most: usize,
    mut ask: impl FnMut(&Words) -> anyhow::Result<Page>,
    mut show: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Page> {
    let mut left = most;
    let mut cursor: Option<String> = None;
    loop {
        let mut words = words.clone();
        words.push(("limit", left.min(MAX_LIMIT).to_string()));
        words.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page = ask(&words)?;
        for (leaf, line) in &page.records {
            show(*leaf, line)?;
        }
        left = left.saturating_sub(page.records.len());
        cursor = page.cursor.clone();
        if cursor.is_none() || left == 0 {
            return Ok(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_asked_for_until_there_is_enough() {
        let line = br#"{"v":"chaperone.dev/v1"}"#.to_vec();
        let mut asked = Vec::new();
        let mut shown = 0;
        let ask = |words: &Words| {
            asked.push(words.clone());
            let limit: usize = words[0].1.parse().unwrap();
            Ok(Page {
                records: vec![(1, line.clone()); limit],
                indexed: 5_000,
                committed: 5_000,
                cursor: Some("1.7.5000".to_owned()),
            })
        };
        let last = pages(&Vec::new(), 1_500, ask, |leaf, shown_line| {
            assert_eq!((leaf, shown_line), (1, line.as_slice()));
            shown += 1;
            Ok(())
        });
        assert!(last.unwrap().cursor.is_some());
        assert_eq!(shown, 1_500);
        let expected = [
            vec![("limit", "1000".to_owned())],
            vec![
                ("limit", "500".to_owned()),
                ("cursor", "1.7.5000".to_owned()),
            ],
        ];
        assert_eq!(asked, expected);
    }
}
