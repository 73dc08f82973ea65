//! Network namespaces for tests: a pod and the world outside it, joined by one
//! cable, gone when the test ends however it ends.
//!
//! A missing tool or right fails the test with a sentence; nothing is skipped.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs::File;
use std::net::IpAddr;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use chaperone_crds::pod::NFLOG_GROUP;
use chaperone_sidecar::capture::{DatagramGap, GapReader, LogEvent};
use nix::sched::{CloneFlags, setns};

/// Address of the pod.
pub const POD: &str = "192.0.2.1";
/// IPv6 address of the pod.
pub const POD6: &str = "2001:db8::1";
/// Address of the world outside.
pub const OUTSIDE: &str = "192.0.2.2";
/// IPv6 address of the world outside.
pub const OUTSIDE6: &str = "2001:db8::2";

/// One network namespace.
#[derive(Clone, Debug)]
pub struct Namespace(String);

/// A pod's namespace and the outside's. Removes both when dropped.
#[derive(Debug)]
pub struct World {
    pub pod: Namespace,
    pub outside: Namespace,
}

impl World {
    /// Makes both namespaces and the cable.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            nix::unistd::geteuid().is_root(),
            "tests with network namespaces need root: run them with sudo or in a root container"
        );
        let id = format!(
            "{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let world = Self {
            pod: Namespace(format!("chap-pod-{id}")),
            outside: Namespace(format!("chap-out-{id}")),
        };
        let (pod, outside) = (&world.pod.0, &world.outside.0);
        tool("ip", &["netns", "add", pod]);
        tool("ip", &["netns", "add", outside]);
        tool(
            "ip",
            &[
                "link", "add", "eth0", "netns", pod, "type", "veth", "peer", "eth0", "netns",
                outside,
            ],
        );
        for (name, v4, v6) in [(pod, POD, POD6), (outside, OUTSIDE, OUTSIDE6)] {
            let (v4, v6) = (format!("{v4}/24"), format!("{v6}/64"));
            tool("ip", &["-n", name, "addr", "add", &v4, "dev", "eth0"]);
            tool(
                "ip",
                &["-n", name, "addr", "add", &v6, "dev", "eth0", "nodad"],
            );
            tool("ip", &["-n", name, "link", "set", "lo", "up"]);
            tool("ip", &["-n", name, "link", "set", "eth0", "up"]);
        }
        tool(
            "ip",
            &["-n", pod, "route", "add", "default", "via", OUTSIDE],
        );
        tool(
            "ip",
            &["-n", pod, "route", "add", "default", "via", OUTSIDE6],
        );
        world
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for namespace in [&self.pod, &self.outside] {
            let _ = Command::new("ip")
                .args(["netns", "del", &namespace.0])
                .status();
        }
    }
}

impl Namespace {
    /// Runs a closure on a thread inside the namespace. Processes that it
    /// starts are inside as well.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = format!("/run/netns/{}", self.0);
        std::thread::spawn(move || {
            let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            setns(file, CloneFlags::CLONE_NEWNET).expect("entering a network namespace needs root");
            work()
        })
    }

    /// Runs a closure inside the namespace and waits for it.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a future on a runtime of its own inside the namespace.
    pub fn run_async<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        self.run(move || runtime().block_on(work()))
    }

    /// Runs a program inside the namespace and returns what it printed.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let mut all = vec!["netns", "exec", &self.0, program];
        all.extend(arguments);
        tool("ip", &all)
    }
}

/// A runtime for one test thread.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Runs a program to its successful end and returns what it printed.
pub fn tool(program: &str, arguments: &[&str]) -> String {
    let output = output(Command::new(program).args(arguments));
    assert!(
        output.status.success(),
        "`{program} {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command; one that is not installed fails the test with a sentence.
pub fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!(
            "{:?} can't be run ({error}): install it (Debian: iproute2, nftables, util-linux)",
            command.get_program()
        )
    })
}

/// Parses an address and attaches a port.
pub fn at(ip: &str, port: u16) -> std::net::SocketAddr {
    (ip.parse::<IpAddr>().unwrap(), port).into()
}

/// Runs `work` inside the namespace and returns the gaps that it caused.
pub fn gaps_during(
    namespace: &Namespace,
    work: impl FnOnce() + Send + 'static,
) -> Vec<DatagramGap> {
    namespace.run(move || {
        let reader = GapReader::bind(NFLOG_GROUP).unwrap();
        work();
        runtime().block_on(async {
            let (events, mut receiver) = tokio::sync::mpsc::channel(64);
            tokio::spawn(reader.run(events, std::future::pending()));
            let mut gaps = Vec::new();
            let quiet = Duration::from_millis(300);
            while let Ok(Some(event)) = tokio::time::timeout(quiet, receiver.recv()).await {
                match event {
                    LogEvent::Packet(gap) => gaps.push(gap),
                    LogEvent::Unreported(packets) => panic!("{packets} packets went unreported"),
                }
            }
            gaps
        })
    })
}
