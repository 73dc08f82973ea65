//! How fast records are indexed, how large the index is, and how fast questions are answered. `bench/search` runs it.
//!
//! The records are made: the same for the same number, with the proportions that agents leave behind. Namespaces, pods, hosts and paths are drawn unevenly, as they are in a cluster; one record in fifty is denied.

#![allow(clippy::unwrap_used, reason = "a measurement may")]

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chaperone_crds::chain::{RecordHash, StreamId};
use chaperone_index::{
    query::Query,
    store::{Index, Limits, Reader, Scope, SessionQuery},
};
use chaperone_ledger::follow::end_of;

const ORIGIN: &str = "ledger.example/bench";
/// Bytes of a segment, as the ledger has them.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
/// When the first record was written: 2026-11-01T00:00:00Z.
const BEGIN: i64 = 1_793_491_200_000_000;
/// How often each question is asked.
const ROUNDS: usize = 200;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let [records, dir] = &arguments[..] else {
        println!(
            "search RECORDS DIR: RECORDS are written to DIR, indexed there and asked about. Run by bench/search."
        );
        return Ok(());
    };
    let (records, dir) = (records.parse()?, PathBuf::from(dir));
    let began = Instant::now();
    let bytes = generate(&dir, records)?;
    let per = |bytes: u64| bytes as f64 / records as f64;
    println!(
        "{records} records of {:.0} bytes written in {:.0} s",
        per(bytes),
        began.elapsed().as_secs_f64()
    );
    let path = dir.join("index.sqlite");
    let began = Instant::now();
    let end = end_of(&dir)?;
    let (mut index, _) = Index::open(&path, &dir, ORIGIN, end)?;
    while index.take(end)? > 0 {}
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "indexed in {seconds:.0} s: {:.0} records/s, {:.0} bytes of index for each\n",
        records as f64 / seconds,
        per(index.bytes())
    );
    ask_all(&Reader::open(&path, &dir)?, records)
}

/// Questions, with `{}` for what changes from round to round.
const QUESTIONS: [(&str, &str); 16] = [
    ("the newest", ""),
    ("a namespace", "namespace=team-{few}"),
    ("a pod", "pod=agent-{many}"),
    ("denied", "decision=Deny"),
    (
        "denied in a namespace",
        "namespace=team-{few}&decision=Deny",
    ),
    ("a host", "host=host-{many}.example.com"),
    (
        "a rare host, denied",
        "host=host-9{few}.example.com&decision=Deny",
    ),
    (
        "a domain and a path",
        "host=*.example.com&path=/v1/item/{few}",
    ),
    (
        "a policy in a namespace",
        "namespace=team-{few}&policy=guard-{few}",
    ),
    ("a session", "session=session-{many}"),
    ("an hour", "since={hour}&until={after}"),
    (
        "an hour of a namespace",
        "namespace=team-{few}&since={hour}&until={after}",
    ),
    (
        "an hour, denied, oldest first",
        "decision=Deny&since={hour}&until={after}&order=asc",
    ),
    ("a word", "q=topic{many}"),
    (
        "words in a row in a namespace",
        "namespace=team-{few}&q=\"topic{many} item\"",
    ),
    (
        "the beginning of a word, denied",
        "decision=Deny&q=topic{many}*",
    ),
];

fn ask_all(reader: &Reader, records: u64) -> anyhow::Result<()> {
    println!(
        "{:34} {:>9} {:>9} {:>9} {:>7}",
        "question", "p50 ms", "p99 ms", "max ms", "found"
    );
    let mut random = Random(7);
    for (name, template) in QUESTIONS {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..ROUNDS {
            let text = fill(template, &mut random, records);
            let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
            let query = Query::parse(pairs)?;
            let began = Instant::now();
            let answer = reader.search(&query, &Scope::All, Limits::default())?;
            times.push(began.elapsed());
            found += answer.found.len();
        }
        show(name, times, found);
    }
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..ROUNDS {
        let query = SessionQuery {
            namespace: Some(format!("team-{}", random.below(10))),
            limit: 100,
            ..SessionQuery::default()
        };
        let began = Instant::now();
        found += reader.sessions(&query, Limits::default())?.found.len();
        times.push(began.elapsed());
    }
    show("sessions of a namespace", times, found);
    Ok(())
}

fn show(name: &str, mut times: Vec<Duration>, found: usize) {
    times.sort();
    let ms = |at: usize| times[at.min(times.len() - 1)].as_secs_f64() * 1000.0;
    let (middle, late) = (times.len() / 2, times.len() * 99 / 100);
    println!(
        "{name:34} {:9.2} {:9.2} {:9.2} {:7.1}",
        ms(middle),
        ms(late),
        ms(usize::MAX),
        found as f64 / ROUNDS as f64
    );
}

fn fill(template: &str, random: &mut Random, records: u64) -> String {
    let span = i64::try_from(records).unwrap() * GAP;
    let hour = BEGIN + i64::try_from(random.below(u64::try_from(span).unwrap())).unwrap();
    template
        .replace("{few}", &random.below(10).to_string())
        .replace("{many}", &random.below(900).to_string())
        .replace("{hour}", &time(hour))
        .replace("{after}", &time(hour + 3_600_000_000))
}

fn time(micros: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(micros).unwrap();
    format!("{time:.6}")
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Small numbers far more often than large ones.
    fn uneven(&mut self, end: u64) -> u64 {
        let [a, b] = [self.below(end), self.below(end)];
        a * b / end
    }
}

/// Microseconds between two records: some fifty a second.
const GAP: i64 = 20_000;
/// Pods that are there at a time.
const PODS: u64 = 200;

struct Pod {
    stream: StreamId,
    number: u64,
    seq: u64,
    prev: RecordHash,
}

/// Writes the segments. Their bytes.
fn generate(dir: &Path, records: u64) -> anyhow::Result<u64> {
    fs::create_dir_all(dir.join("records"))?;
    let mut random = Random(records);
    let mut pods: Vec<Pod> = (0..PODS).map(|number| pod(number, &mut random)).collect();
    let mut next = PODS;
    let (mut segment, mut size, mut total) = (0, 0_u64, 0_u64);
    let mut out = file(dir, segment)?;
    let mut line = String::new();
    for number in 0..records {
        let at = usize::try_from(random.uneven(PODS))?;
        // A pod lives for some thousand records.
        if random.below(5_000) == 0 {
            pods[at] = pod(next, &mut random);
            next += 1;
        }
        let when = BEGIN + i64::try_from(number)? * GAP + i64::try_from(random.below(3_000_000))?;
        record(&mut pods[at], when, &mut random, &mut line);
        out.write_all(line.as_bytes())?;
        let length = u64::try_from(line.len())?;
        (size, total) = (size + length, total + length);
        if size >= SEGMENT_BYTES {
            (segment, size) = (segment + 1, 0);
            out.flush()?;
            out = file(dir, segment)?;
        }
    }
    out.flush()?;
    Ok(total)
}

fn file(dir: &Path, segment: u64) -> anyhow::Result<BufWriter<File>> {
    let path = dir.join(format!("records/{segment:08}.jsonl"));
    Ok(BufWriter::with_capacity(1 << 20, File::create(path)?))
}

fn pod(number: u64, random: &mut Random) -> Pod {
    let (a, b) = (random.next(), random.next());
    let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
    Pod {
        stream: StreamId::from_random(bytes.try_into().expect("16 bytes")),
        number,
        seq: 0,
        prev: RecordHash::GENESIS,
    }
}

fn record(pod: &mut Pod, when: i64, random: &mut Random, line: &mut String) {
    use std::fmt::Write as _;
    line.clear();
    let Pod {
        stream,
        number,
        seq,
        prev,
    } = pod;
    let kind = match (*seq, random.below(10)) {
        (0, _) => "stream.open",
        (_, 0..=2) => "dns",
        _ => "http",
    };
    let (namespace, agent) = (*number % 20, *number % 1_000);
    let _ = write!(
        line,
        r#"{{"v":"chaperone.dev/v1","stream":"{stream}","seq":{seq},"prev":"{prev}","time":"{}","kind":"{kind}","agent":{{"namespace":"team-{namespace}","pod":"agent-{agent}","serviceAccount":"coder-{}"}}"#,
        time(when),
        agent % 7
    );
    let host = random.uneven(1_000);
    let (action, status) = match random.below(50) {
        0 => ("Deny", 403),
        _ => ("Allow", 200),
    };
    let decision = format!(
        r#""decision":{{"action":"{action}","mode":"Enforce","policy":"guard-{}","rule":"r{}","revision":"0123456789abcdef","reason":"rule"}}"#,
        random.uneven(30),
        random.below(8)
    );
    let _ = match kind {
        "dns" => write!(
            line,
            r#","operation":{{"protocol":"dns","verb":"A","resource":"host-{host}.example.com"}},{decision},"dns":{{"rcode":"NOERROR","answers":["203.0.113.{}"]}}"#,
            host % 256
        ),
        "http" => write!(
            line,
            r#","destination":{{"host":"host-{host}.example.com","ip":"203.0.113.{}","port":443}},"operation":{{"protocol":"http","verb":"GET","resource":"https://host-{host}.example.com/v1/item/{}/{}?topic{}=item"}},{decision},"http":{{"status":{status},"responseBytes":{},"contentType":"application/json"}},"session":{{"id":"session-{}","requestId":"{:016x}"}},"timing":{{"totalUs":{},"upstreamUs":12000,"decideUs":12}}"#,
            host % 256,
            random.below(50),
            random.below(100_000),
            random.uneven(1_000),
            random.below(100_000),
            *number * 10 + *seq / 500,
            random.next(),
            random.below(1_000_000)
        ),
        _ => Ok(()),
    };
    line.push('}');
    *prev = RecordHash::of(line.as_bytes());
    line.push('\n');
    *seq += 1;
}
