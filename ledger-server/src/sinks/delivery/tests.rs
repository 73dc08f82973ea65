//! The loop against targets that are scripted, on a clock that is not real: hours pass in milliseconds.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use chaperone_crds::{
    bodies::unsalted,
    chain::{Chain, StreamId},
    record::{AgentRef, Event, EventKind},
    resources::{Format, SinkStart},
};
use chaperone_ledger::{follow::Place, store::Keeper};
use chaperone_sinks::settings::{self, Batch, Http, Tls};
use prometheus::Registry;

use jiff::Timestamp;

use super::*;
use crate::sinks::{metrics::SinkMetrics, target::Sending};

/// A ledger's directory that grows, gone with the test.
struct Log {
    dir: PathBuf,
    chain: Chain,
    end: watch::Sender<Cursor>,
}

impl Log {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("chaperone-sinks-{name}-{}", std::process::id()));
        // A killed run may have left it.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("records")).unwrap();
        let chain = Chain::new(StreamId::from_random([7; 16]));
        Self {
            dir,
            chain,
            end: watch::Sender::new(Cursor::START),
        }
    }

    /// Commits so many records.
    fn grow(&mut self, records: u64) {
        let mut lines = Vec::new();
        for _ in 0..records {
            let kind = match self.chain.next_seq() {
                0 => EventKind::StreamOpen,
                _ => EventKind::Dns,
            };
            self.chain.append(
                &Event::new(kind, AgentRef::default()),
                Timestamp::now(),
                unsalted,
                &mut lines,
            );
        }
        let path = self.dir.join("records/00000000.jsonl");
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        std::io::Write::write_all(&mut file, &lines).unwrap();
        self.end.send_modify(|end| {
            end.leaf += records;
            end.place = Place {
                segment: 0,
                offset: end.place.offset + lines.len() as u64,
            };
        });
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

type Script = Arc<dyn Fn(usize, &[u64]) -> (Duration, Result<Answer, Failure>) + Send + Sync>;

/// A target that answers the n-th batch, of these records, as its script says, and remembers what it took.
#[derive(Clone)]
struct Scripted {
    script: Script,
    asked: Arc<AtomicUsize>,
    took: Arc<Mutex<Vec<u64>>>,
}

impl Scripted {
    fn new(
        script: impl Fn(usize, &[u64]) -> (Duration, Result<Answer, Failure>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Arc::new(script),
            asked: Arc::default(),
            took: Arc::default(),
        }
    }

    fn took(&self) -> Vec<u64> {
        self.took.lock().unwrap().clone()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    async fn answer(&self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        let records: Vec<u64> = batch.iter().map(|record| record.about.seq).collect();
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let (after, answer) = (self.script)(number, &records);
        sleep(after).await;
        if let Ok(answer) = &answer {
            let not = |place: &usize| {
                let not = answer.refused.iter().chain(&answer.unfit);
                !answer.again.contains(place) && !not.into_iter().any(|(at, _)| at == place)
            };
            let taken = (0..records.len()).filter(not).map(|place| records[place]);
            self.took.lock().unwrap().extend(taken);
        }
        answer
    }
}

impl Target for Scripted {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.answer(batch))
    }
}

fn at_once(answer: Result<Answer, Failure>) -> (Duration, Result<Answer, Failure>) {
    (Duration::ZERO, answer)
}

fn accept() -> (Duration, Result<Answer, Failure>) {
    at_once(Ok(Answer::default()))
}

fn fail(failure: Failure) -> (Duration, Result<Answer, Failure>) {
    at_once(Err(failure))
}

fn sink(name: &str, filter: Option<&str>) -> Sink {
    Sink {
        name: name.to_owned(),
        format: Format::Native,
        filter: filter.map(str::to_owned),
        start: SinkStart::Oldest,
        batch: Batch {
            records: 10,
            bytes: 1024 * 1024,
            wait: Duration::from_millis(500),
        },
        target: settings::Target::Http(Http {
            url: "https://nowhere.example/".to_owned(),
            bearer: None,
            tls: Tls::default(),
        }),
    }
}

struct Running {
    status: Arc<Status>,
    metrics: SinkMetrics,
    files: Files,
    task: tokio::task::JoinHandle<()>,
}

fn start(log: &Log, sink: Sink, target: &Scripted) -> Running {
    let metrics = SinkMetrics::new(&Registry::new());
    let status = Arc::new(Status::new(&sink.name, metrics.clone()));
    let files = Files::open(&log.dir, Keeper::default()).unwrap();
    let target = target.clone();
    let around = Around {
        dir: log.dir.clone(),
        committed: log.end.subscribe(),
        files: files.clone(),
        make: Arc::new(move |_| Ok(Box::new(target.clone()))),
        status: status.clone(),
    };
    let cursor = files
        .cursor(&sink.name)
        .unwrap()
        .map_or(Cursor::START, |kept| kept.cursor);
    let task = tokio::spawn(Delivery::new(sink, cursor, around).run());
    Running {
        status,
        metrics,
        files,
        task,
    }
}

impl Running {
    /// Waits until the cursor on disk has this number.
    async fn kept(&self, name: &str, leaf: u64) {
        let until = Instant::now() + Duration::from_secs(24 * 3600);
        while self
            .files
            .cursor(name)
            .unwrap()
            .map_or(0, |kept| kept.cursor.leaf)
            != leaf
        {
            assert!(Instant::now() < until, "a day has passed");
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn count(
        &self,
        counter: impl Fn(&SinkMetrics) -> &prometheus::IntCounterVec,
        name: &str,
    ) -> u64 {
        counter(&self.metrics).with_label_values(&[name]).get()
    }
}

fn refused(log: &Log, name: &str) -> Vec<u64> {
    let path = log.dir.join(format!("sinks/{name}.refused.jsonl"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.map(|line| line["seq"].as_u64().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_record_is_sent_once_in_order_in_batches_of_at_most_their_size() {
    let mut log = Log::new("order");
    let target = Scripted::new(|_, records| {
        assert!(records.len() <= 10);
        accept()
    });
    let running = start(&log, sink("s", None), &target);
    for step in [1, 9, 25, 300] {
        log.grow(step);
        sleep(Duration::from_secs(1)).await;
    }
    running.kept("s", 335).await;
    assert_eq!(target.took(), (0..335).collect::<Vec<_>>());
    assert!(target.asked() <= 1 + 1 + 3 + 31, "{}", target.asked());
    assert_eq!(running.count(|m| &m.records, "s"), 335);
    assert!(running.status.health().failing.is_none());
}

#[tokio::test(start_paused = true)]
async fn each_batch_fills_for_as_long_as_it_may_while_records_keep_coming() {
    let mut log = Log::new("fills");
    // Slow enough that records wait each time when it has answered.
    let target = Scripted::new(|_, _| (Duration::from_secs(1), Ok(Answer::default())));
    let mut settings = sink("s", None);
    settings.batch.records = 50;
    settings.batch.wait = Duration::from_secs(10);
    let running = start(&log, settings, &target);
    for _ in 0..600 {
        log.grow(1);
        sleep(Duration::from_millis(500)).await;
    }
    running.kept("s", 600).await;
    assert_eq!(target.took(), (0..600).collect::<Vec<_>>());
    assert!((20..=32).contains(&target.asked()), "{}", target.asked());
    // Those that are enough do not wait.
    let since = Instant::now();
    log.grow(100);
    running.kept("s", 700).await;
    assert!(since.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_down_for_an_hour_gets_everything_and_holds_up_no_other() {
    let mut log = Log::new("hour");
    let up_at = Instant::now() + Duration::from_secs(3600);
    let down = Scripted::new(move |_, _| match Instant::now() < up_at {
        true => fail(Failure::soon("connect", "refused")),
        false => accept(),
    });
    let up = Scripted::new(|_, _| accept());
    let one = start(&log, sink("down", None), &down);
    let other = start(&log, sink("up", None), &up);
    for minute in 1..=60 {
        log.grow(20);
        sleep(Duration::from_secs(59)).await;
        assert_eq!(up.took().len(), minute * 20, "the other is not held up");
    }
    assert!(down.took().is_empty());
    assert_eq!(one.status.health().failing.unwrap().reason, "connect");
    assert!(
        (100..1000).contains(&down.asked()),
        "an hour of waits that double: {}",
        down.asked()
    );
    one.status.show(log.end.borrow().leaf, Timestamp::now());
    assert_eq!(
        one.metrics.lag_records.with_label_values(&["down"]).get(),
        1200
    );
    one.kept("down", 1200).await;
    other.kept("up", 1200).await;
    assert_eq!(down.took(), (0..1200).collect::<Vec<_>>());
    assert!(one.status.health().failing.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_target_is_waited_for_and_one_that_never_answers_is_asked_anew() {
    let mut log = Log::new("slow");
    let target = Scripted::new(|number, _| match number % 3 {
        0 => (SEND_TIMEOUT * 2, Ok(Answer::default())),
        _ => (SEND_TIMEOUT / 2, Ok(Answer::default())),
    });
    log.grow(50);
    let running = start(&log, sink("s", None), &target);
    running.kept("s", 50).await;
    assert_eq!(target.took(), (0..50).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_a_target_asks_for_in_retry_after_is_waited_for() {
    let mut log = Log::new("retry");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = asked.clone();
    let target = Scripted::new(move |number, _| {
        times.lock().unwrap().push(Instant::now());
        let mut failure = Failure::soon("throttled", "429");
        failure.retry_after = Some(Duration::from_secs(120));
        match number {
            0 | 1 => fail(failure),
            _ => accept(),
        }
    });
    log.grow(3);
    let running = start(&log, sink("s", None), &target);
    running.kept("s", 3).await;
    let times = asked.lock().unwrap().clone();
    assert!(
        times
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= Duration::from_secs(120)),
        "{times:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_for_good_is_named_and_holds_up_none() {
    let mut log = Log::new("poison");
    let target = Scripted::new(
        |_, records| match records.contains(&14) || records.contains(&0) {
            true => fail(Failure::new(Then::Refused, "refused", "a field is wrong")),
            false => accept(),
        },
    );
    log.grow(40);
    let running = start(&log, sink("s", None), &target);
    running.kept("s", 40).await;
    let expected: Vec<u64> = (1..40).filter(|seq| *seq != 14).collect();
    assert_eq!(target.took(), expected);
    assert_eq!(refused(&log, "s"), [0, 14]);
    assert_eq!(running.count(|m| &m.refused, "s"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_refuses_every_record_is_not_believed() {
    let mut log = Log::new("all");
    let mended_at = Instant::now() + Duration::from_secs(7200);
    let target = Scripted::new(move |_, _| match Instant::now() < mended_at {
        true => fail(Failure::new(Then::Refused, "refused", "400: no such table")),
        false => accept(),
    });
    log.grow(40);
    let running = start(&log, sink("s", None), &target);
    sleep(Duration::from_secs(3600)).await;
    let failing = running.status.health().failing.unwrap();
    assert!(
        failing.message.contains("refuses every record")
            && failing.message.contains("no such table"),
        "{failing:?}"
    );
    assert!(target.asked() < 2000, "{}", target.asked());
    running.kept("s", 40).await;
    assert_eq!(target.took(), (0..40).collect::<Vec<_>>());
    assert!(refused(&log, "s").is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_refused_records_at_the_beginning_are_told_from_a_target_that_takes_none() {
    let mut log = Log::new("beginning");
    let target = Scripted::new(|_, records| match records.iter().any(|seq| *seq < 9) {
        true => fail(Failure::new(Then::Refused, "refused", "too old")),
        false => accept(),
    });
    log.grow(10);
    let running = start(&log, sink("s", None), &target);
    running.kept("s", 10).await;
    assert_eq!(target.took(), [9]);
    let mut named = refused(&log, "s");
    named.sort_unstable();
    assert_eq!(named, (0..9).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn records_that_are_unfit_themselves_are_passed_over_by_a_target_that_has_taken_none() {
    let mut log = Log::new("unfit");
    let target = Scripted::new(|_, records| {
        let old = records.iter().enumerate().filter(|(_, seq)| **seq < 25);
        at_once(Ok(Answer {
            unfit: old.map(|(at, _)| (at, "too old".to_owned())).collect(),
            ..Answer::default()
        }))
    });
    log.grow(40);
    let running = start(&log, sink("s", None), &target);
    running.kept("s", 40).await;
    assert_eq!(target.took(), (25..40).collect::<Vec<_>>());
    assert_eq!(refused(&log, "s"), (0..25).collect::<Vec<_>>());
    assert_eq!(running.count(|m| &m.refused, "s"), 25);
    assert_eq!(running.count(|m| &m.records, "s"), 15);
    assert_eq!(target.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_must_come_again_of_a_batch_comes_alone() {
    let mut log = Log::new("partly");
    let target = Scripted::new(|number, records| match number {
        0 => at_once(Ok(Answer {
            refused: vec![(2, "bad".to_owned())],
            again: vec![0, 1, 7],
            ..Answer::default()
        })),
        1 => {
            assert_eq!(records, [0, 1]);
            accept()
        }
        2 => {
            assert_eq!(records, [7]);
            accept()
        }
        _ => accept(),
    });
    log.grow(10);
    let running = start(&log, sink("s", None), &target);
    running.kept("s", 10).await;
    let mut took = target.took();
    took.sort_unstable();
    assert_eq!(took, [0, 1, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(refused(&log, "s"), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_large_is_halved_and_later_ones_are_smaller() {
    let mut log = Log::new("large");
    let target = Scripted::new(|_, records| match records.len() {
        0..=3 => accept(),
        _ => fail(Failure::new(Then::Fewer, "refused", "413")),
    });
    log.grow(100);
    let running = start(&log, sink("s", None), &target);
    running.kept("s", 100).await;
    assert_eq!(target.took(), (0..100).collect::<Vec<_>>());
    assert!(target.asked() < 70, "{}", target.asked());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_killed_in_the_middle_of_a_batch_sends_that_batch_again_and_no_other() {
    let mut log = Log::new("killed");
    let target = Scripted::new(|number, _| match number {
        // Taken, and the answer is never seen.
        3 => (Duration::from_secs(30), Ok(Answer::default())),
        _ => accept(),
    });
    log.grow(100);
    let running = start(&log, sink("s", None), &target);
    running.kept("s", 30).await;
    sleep(Duration::from_secs(1)).await;
    running.task.abort();
    let _ = running.task.await;
    target.took.lock().unwrap().extend(30..40);
    let running = start(&log, sink("s", None), &target);
    running.kept("s", 100).await;
    let expected: Vec<u64> = (0..40).chain(30..100).collect();
    assert_eq!(target.took(), expected);
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_keeps_back_is_counted_and_passed_over() {
    let mut log = Log::new("filter");
    let target = Scripted::new(|_, _| accept());
    log.grow(100);
    let running = start(&log, sink("s", Some("record.seq % 10 == 0")), &target);
    running.kept("s", 100).await;
    assert_eq!(target.took(), (0..10).map(|n| n * 10).collect::<Vec<_>>());
    assert_eq!(running.count(|m| &m.left_out, "s"), 90);
    assert_eq!(target.asked(), 1, "ten that pass are one batch");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_written_in_the_format_stops_the_sink_and_nothing_is_lost() {
    let mut log = Log::new("format");
    let target = Scripted::new(|_, _| accept());
    log.grow(5);
    let strange = br#"{"v":"chaperone.dev/v1","stream":"x","seq":5,"kind":"of the future"}"#;
    let path = log.dir.join("records/00000000.jsonl");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(strange);
    bytes.push(b'\n');
    std::fs::write(&path, &bytes).unwrap();
    log.end.send_replace(Cursor {
        leaf: 6,
        place: Place {
            segment: 0,
            offset: bytes.len() as u64,
        },
    });
    let mut ecs = sink("s", None);
    ecs.format = Format::Ecs;
    let running = start(&log, ecs, &target);
    running.kept("s", 5).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(target.took(), [0, 1, 2, 3, 4]);
    assert_eq!(running.status.health().failing.unwrap().reason, "render");
    running.task.abort();
    let _ = running.task.await;
    let running = start(&log, sink("s", None), &target);
    running.kept("s", 6).await;
    assert_eq!(target.took().len(), 6);
}
