//! How long the index takes to forget what was deleted, and how long questions take meanwhile. `bench/forget` runs it.
//!
//! The ledger is made by its own store, with content that is sealed: three days of the same size, of 200 pods, each of which begins another session after 400 records.

#![allow(clippy::unwrap_used, reason = "a measurement may")]

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chaperone_crds::{
    bodies,
    chain::{Chain, RecordHash, StreamId},
    record::{AgentRef, Event, EventKind, HttpInfo, OperationInfo, SessionInfo},
};
use chaperone_index::{
    query::Query,
    store::{Forgot, Index, Limits, Reader, Scope},
};
use chaperone_ledger::{
    content::{Day, Entry},
    follow::Place,
    store::{Config, Store, Sweeper},
};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

const ORIGIN: &str = "ledger.example/bench";
/// Bytes of a segment, as the ledger has them.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
/// 2026-11-01T00:00:00Z.
const BEGIN: i64 = 1_793_491_200;
const DAYS: u64 = 3;
const PODS: u64 = 200;
const SESSION_RECORDS: u64 = 400;
/// Records of a batch.
const BATCH: u64 = 50;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let [records, dir] = &arguments[..] else {
        println!(
            "forget RECORDS DIR: RECORDS are written to DIR, indexed there and deleted in part. Run by bench/forget."
        );
        return Ok(());
    };
    let dir = PathBuf::from(dir);
    let records: u64 = records.parse()?;
    let mut store = Store::open(Config {
        dir: dir.clone(),
        origin: ORIGIN.parse()?,
        keys: Vec::new(),
        segment_bytes: SEGMENT_BYTES,
        checkpoint_seconds: 3600,
    })?;
    generate(&mut store, records)?;
    let end = store.end().place;
    let path = dir.join("index.sqlite");
    let began = Instant::now();
    let (mut index, _) = Index::open(&path, &dir, ORIGIN, end)?;
    while index.take(end)? > 0 {}
    finish(&mut index, end)?;
    println!(
        "{records} records indexed in {:.1} s, {:.0} MB of index",
        began.elapsed().as_secs_f64(),
        index.bytes() as f64 / 1e6
    );
    println!(
        "\n{:44} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "forgotten", "seconds", "questions", "p50 ms", "p99 ms", "max ms"
    );
    let mut bench = Bench {
        sweeper: Sweeper::new(&dir, StreamId::of_ledger(ORIGIN)),
        newest: end.segment,
        dir,
        end,
        index,
        store,
    };
    bench.all()
}

struct Bench {
    dir: PathBuf,
    end: Place,
    newest: u64,
    index: Index,
    store: Store,
    sweeper: Sweeper,
}

impl Bench {
    fn all(&mut self) -> anyhow::Result<()> {
        let session = session(7, 0);
        let count = self.destroy(|entry| entry.session.as_deref() == Some(&session))?;
        self.forget(&format!("content of a session, {count} key"))?;
        self.sweep(&BTreeSet::new(), 0..0)?;
        self.forget("its segments, written anew")?;
        let first = Day::of(Timestamp::from_second(BEGIN)?);
        let count = self.destroy(|entry| entry.id.day() == first)?;
        self.forget(&format!("content of a day, {count} keys"))?;
        self.sweep(&BTreeSet::new(), 0..0)?;
        self.forget("its segments, written anew")?;
        let streams: BTreeSet<_> = (0..PODS).map(stream).collect();
        let segments = 0..self.newest / DAYS;
        self.sweep(&streams, segments)?;
        self.forget("records of that day")?;
        let began = Instant::now();
        let path = self.dir.join("anew.sqlite");
        let (mut index, _) = Index::open(&path, &self.dir, ORIGIN, self.end)?;
        while index.take(self.end)? > 0 {}
        let seconds = began.elapsed().as_secs_f64();
        println!("\nan index made anew of what is left: {seconds:.1} s");
        Ok(())
    }

    fn destroy(&mut self, is_due: impl Fn(&Entry) -> bool) -> anyhow::Result<usize> {
        let mut count = 0;
        for day in self.store.key_days()? {
            let entries = self.store.keys_of(day)?.into_iter();
            let keys: HashSet<_> = entries.filter(&is_due).map(|entry| entry.id).collect();
            count += keys.len();
            self.store.destroy(day, &keys)?;
        }
        Ok(count)
    }

    fn sweep(
        &mut self,
        gone: &BTreeSet<StreamId>,
        segments: std::ops::Range<u64>,
    ) -> anyhow::Result<()> {
        self.sweeper.look(self.newest, || {})?;
        for segment in 0..self.newest {
            match segments.contains(&segment) {
                true => drop(self.sweeper.rewrite(segment, gone)?),
                false if self.sweeper.is_stale(segment)? => {
                    self.sweeper.rewrite(segment, &BTreeSet::new())?;
                }
                false => {}
            }
        }
        Ok(())
    }

    fn forget(&mut self, what: &str) -> anyhow::Result<()> {
        let asks = Asks::start(&self.dir)?;
        let began = Instant::now();
        self.index.deleted();
        finish(&mut self.index, self.end)?;
        let took = began.elapsed();
        let times = asks.end()?;
        let ms = |at: usize| times[at.min(times.len() - 1)].as_secs_f64() * 1000.0;
        println!(
            "{what:44} {:9.2} {:9} {:9.2} {:9.2} {:9.2}",
            took.as_secs_f64(),
            times.len(),
            ms(times.len() / 2),
            ms(times.len() * 99 / 100),
            ms(usize::MAX)
        );
        Ok(())
    }
}

fn finish(index: &mut Index, end: Place) -> anyhow::Result<()> {
    while index.forget(end)? != Forgot::All {}
    Ok(())
}

/// Somebody who asks one question after the other.
struct Asks {
    thread: std::thread::JoinHandle<anyhow::Result<Vec<Duration>>>,
    ended: Arc<AtomicBool>,
}

impl Asks {
    fn start(dir: &Path) -> anyhow::Result<Self> {
        let reader = Reader::open(&dir.join("index.sqlite"), dir)?;
        let ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            for number in 0.. {
                let question = match number % 3 {
                    0 => ("session", session(number % PODS, 1)),
                    1 => ("q", format!("topic{}", number % 900)),
                    _ => ("namespace", format!("team-{}", number % 20)),
                };
                let query = Query::parse([(question.0, question.1.as_str())])?;
                let began = Instant::now();
                reader.search(&query, &Scope::All, Limits::default())?;
                times.push(began.elapsed());
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            times.sort();
            Ok(times)
        });
        Ok(Self { thread, ended })
    }

    fn end(self) -> anyhow::Result<Vec<Duration>> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn stream(pod: u64) -> StreamId {
    let digest = Sha256::digest(pod.to_le_bytes());
    StreamId::from_random(*digest.first_chunk().unwrap())
}

fn session(pod: u64, number: u64) -> String {
    format!("session-{pod}-{number}")
}

fn generate(store: &mut Store, records: u64) -> anyhow::Result<()> {
    let mut chains: Vec<_> = (0..PODS).map(|pod| Chain::new(stream(pod))).collect();
    let of_pod = records / PODS;
    for from in (0..of_pod).step_by(usize::try_from(BATCH)?) {
        let second = BEGIN + i64::try_from(from * DAYS * 86_400 / of_pod)?;
        let time = Timestamp::from_second(second)?;
        store.at(time);
        for (chain, pod) in chains.iter_mut().zip(0..) {
            let mut batch = Vec::new();
            for number in from..(from + BATCH).min(of_pod) {
                record(chain, (pod, number), time, &mut batch);
            }
            let _ = store.stage(&stream(pod), &batch)?;
        }
        store.commit()?;
    }
    Ok(())
}

fn record(chain: &mut Chain, (pod, number): (u64, u64), time: Timestamp, out: &mut Vec<u8>) {
    let agent = AgentRef {
        namespace: format!("team-{}", pod % 20),
        pod: format!("agent-{pod}"),
        service_account: "coder".to_owned(),
    };
    let mut line = Vec::new();
    if number == 0 {
        chain.append(
            &Event::new(EventKind::StreamOpen, agent),
            time,
            bodies::unsalted,
            &mut line,
        );
        out.extend_from_slice(&line);
        return;
    }
    let mix = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut event = Event::new(EventKind::Http, agent);
    event.operation = Some(OperationInfo {
        protocol: "http".to_owned(),
        verb: "POST".to_owned(),
        resource: format!(
            "https://host-{}.example.com/v1/item/{}?topic{}",
            mix % 500,
            mix % 50,
            mix % 900
        ),
    });
    event.http = Some(HttpInfo {
        status: Some(200),
        ..HttpInfo::default()
    });
    event.session = Some(SessionInfo {
        id: Some(session(pod, number / SESSION_RECORDS)),
        ..SessionInfo::default()
    });
    let seq = chain.next_seq();
    chain.append(&event, time, bodies::unsalted, &mut line);
    line.truncate(line.len() - 2);
    let words = (0..40).map(|n| format!("word{} ", mix.wrapping_mul(n + 7) % 5_000));
    let text: String = words.chain([format!("only{pod}x{number}")]).collect();
    let salt = hex::encode(&Sha256::digest(&line)[..16]);
    let tail = format!(r#"{{"salt":"{salt}","http.requestBody":{{"text":"{text}"}}}}"#);
    let digest = hex::encode(Sha256::digest(&tail));
    line.extend_from_slice(format!(r#","bodiesSha256":"{digest}","bodies":{tail}}}"#).as_bytes());
    *chain = Chain::resume(chain.stream().clone(), seq + 1, RecordHash::of(&line));
    line.push(b'\n');
    out.extend_from_slice(&line);
}
