//! The capture rules against a real kernel: each test has its own pod and
//! outside world. Needs root and the tools `ip`, `nft` and `setpriv`.

#![allow(clippy::unwrap_used)]

#[path = "support/netns.rs"]
mod netns;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use chaperone_crds::pod::{EGRESS_MARK, NFLOG_GROUP, SIDECAR_UID};
use chaperone_sidecar::capture::{
    CaptureConfig, CaptureError, CaptureMode, DatagramGap, DatagramKind, Datagrams, GapReader,
    LogEvent, OriginalDstError, Transport, dial, install, original_dst, remove, ruleset, watching,
};
use netns::{Namespace, OUTSIDE, OUTSIDE6, POD, POD6, World, at, gaps_during, output, runtime};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Environment variable by which a test asks its own binary for one step in a
/// process of its own.
const STEP: &str = "CHAPERONE_TEST_STEP";
const WAIT: Duration = Duration::from_secs(3);

// === The rules themselves ===

#[test]
fn the_kernel_prints_the_rules_back_as_the_model_says_them() {
    let world = World::new();
    let allowed = [
        (
            "10.1.0.0/16",
            DatagramKind::Udp {
                first: 100,
                last: 200,
            },
        ),
        (
            "10.2.3.4/32",
            DatagramKind::Udp {
                first: 123,
                last: 123,
            },
        ),
        ("10.128.0.0/9", DatagramKind::Icmp),
        ("0.0.0.0/0", DatagramKind::Udp { first: 9, last: 9 }),
        ("fd00::/12", DatagramKind::Udp { first: 1, last: 2 }),
        ("fd00::1/128", DatagramKind::Icmp),
        ("::/0", DatagramKind::Udp { first: 7, last: 7 }),
    ];
    let allowed: Vec<_> = allowed
        .into_iter()
        .map(|(network, protocol)| Datagrams {
            network: network.parse().unwrap(),
            protocol,
        })
        .collect();
    for config in [
        CaptureConfig::pod(CaptureMode::Audit),
        CaptureConfig::pod(CaptureMode::Enforce),
        CaptureConfig {
            allowed,
            ..CaptureConfig::pod(CaptureMode::Enforce)
        },
        CaptureConfig::isolated(CaptureMode::Audit),
        CaptureConfig::isolated(CaptureMode::Enforce),
    ] {
        capture(&world.pod, &config);
        let printed = world.pod.tool("nft", &["list", "ruleset"]);
        assert_eq!(printed, ruleset(&config).to_string());
    }
    world.pod.run(|| remove().and_then(|()| remove())).unwrap();
    assert_eq!(world.pod.tool("nft", &["list", "ruleset"]), "");
}

#[test]
fn the_kernel_understands_the_rules_that_go_with_the_reader_of_the_log() {
    let world = World::new();
    let reader = world.pod.run(|| GapReader::bind(NFLOG_GROUP).unwrap());
    let printed = world.pod.tool("nft", &["list", "ruleset"]);
    let (first, rest) = printed.split_once('\n').unwrap();
    // nft names the process behind the table.
    let first = first.split_once(" #").map_or(first, |(table, _)| table);
    assert_eq!(
        format!("{first}\n{rest}"),
        watching(NFLOG_GROUP).to_string()
    );
    let second = world.pod.run(|| GapReader::bind(NFLOG_GROUP)).unwrap_err();
    assert!(
        matches!(second, CaptureError::LogRefused { .. }),
        "{second}"
    );
    drop(reader);
    assert_eq!(world.pod.tool("nft", &["list", "ruleset"]), "");
}

#[test]
fn a_full_list_of_allowed_destinations_fits_one_batch_and_a_longer_one_is_refused() {
    let world = World::new();
    let entry = Datagrams {
        network: "2001:db8:ffff::/49".parse().unwrap(),
        protocol: DatagramKind::Udp {
            first: 1000,
            last: 2000,
        },
    };
    let mut config = CaptureConfig::pod(CaptureMode::Enforce);
    config.allowed = vec![entry; chaperone_sidecar::capture::MAX_ALLOWED];
    capture(&world.pod, &config);
    config.allowed.push(config.allowed[0].clone());
    let refused = world.pod.run(move || install(&config)).unwrap_err();
    assert!(
        matches!(refused, CaptureError::TooManyAllowed { given: 129 }),
        "{refused}"
    );
}

#[test]
fn a_process_with_only_net_admin_installs_rules_that_outlive_it() {
    let world = World::new();
    let refused = step(&world.pod, &AS_SIDECAR_UID, "install");
    assert!(refused.contains("NET_ADMIN"), "{refused}");
    assert_eq!(step(&world.pod, &AS_SIDECAR, "install"), "installed");
    assert!(
        world
            .pod
            .tool("nft", &["list", "ruleset"])
            .contains("chain nat_output")
    );
    outside_tcp(&world, 8080);
    let connected = world
        .pod
        .run(|| TcpStream::connect(at(OUTSIDE, 8080)).map(drop));
    assert_eq!(
        connected.unwrap_err().kind(),
        ErrorKind::ConnectionRefused,
        "nobody is at 15001"
    );
}

// === TCP ===

#[test]
fn tcp_of_both_families_arrives_with_its_original_destination() {
    let world = World::new();
    capture(&world.pod, &CaptureConfig::pod(CaptureMode::Audit));
    sidecar_tcp(&world.pod, &["127.0.0.1:15001", "[::1]:15001"]);
    for (ip, expected) in [
        (OUTSIDE, "redirected from 192.0.2.2:443"),
        (OUTSIDE6, "redirected from [2001:db8::2]:443"),
        ("203.0.113.9", "redirected from 203.0.113.9:443"),
    ] {
        assert_eq!(ask(&world.pod, ip, 443).unwrap(), expected);
    }
}

#[test]
fn a_dual_stack_listener_sees_plain_ipv4_destinations() {
    let world = World::new();
    capture(&world.pod, &CaptureConfig::pod(CaptureMode::Audit));
    sidecar_tcp(&world.pod, &["[::]:15001"]);
    assert_eq!(
        ask(&world.pod, OUTSIDE, 80).unwrap(),
        "redirected from 192.0.2.2:80"
    );
    assert_eq!(
        ask(&world.pod, OUTSIDE6, 80).unwrap(),
        "redirected from [2001:db8::2]:80"
    );
}

#[test]
fn a_connection_to_the_listener_itself_is_told_apart() {
    let world = World::new();
    capture(&world.pod, &CaptureConfig::pod(CaptureMode::Audit));
    // The rules refuse such a connection; this looks at what is left without.
    world
        .pod
        .tool("nft", &["flush chain inet chaperone filter_input"]);
    let found = world.pod.run_async(|| async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:15001")
            .await
            .unwrap();
        let _client = dial(at("127.0.0.1", 15001), None).await.unwrap();
        original_dst(&listener.accept().await.unwrap().0)
    });
    assert!(
        matches!(found, Err(OriginalDstError::NotRedirected { .. })),
        "{found:?}"
    );
}

#[test]
fn only_mark_and_uid_together_leave_directly() {
    let world = World::new();
    capture(&world.pod, &CaptureConfig::pod(CaptureMode::Enforce));
    sidecar_tcp(&world.pod, &["127.0.0.1:15001", "[::1]:15001"]);
    outside_tcp(&world, 8080);
    for ip in [OUTSIDE, OUTSIDE6] {
        let target = at(ip, 8080);
        let redirected = format!("redirected from {target}");
        let plain = format!("connect {target}");
        let marked = format!("connect-marked {target}");
        assert_eq!(
            step(&world.pod, &AS_SIDECAR_UID, &plain),
            redirected,
            "uid alone"
        );
        assert_eq!(
            step(&world.pod, &AS_ROOT, &marked),
            redirected,
            "mark alone"
        );
        assert_eq!(step(&world.pod, &AS_SIDECAR, &marked), "direct", "both");
    }
}

#[test]
fn what_an_exempt_socket_still_holds_when_closed_arrives() {
    let world = World::new();
    capture(&world.pod, &CaptureConfig::pod(CaptureMode::Enforce));
    let (ready, wait) = std::sync::mpsc::channel();
    let server = world.outside.spawn(move || {
        let listener = TcpListener::bind((OUTSIDE, 8080)).unwrap();
        ready.send(()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(WAIT)).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all.len())
    });
    wait.recv().unwrap();
    let sent = step(
        &world.pod,
        &AS_SIDECAR,
        &format!("write-and-close {OUTSIDE}:8080"),
    );
    let received = server
        .join()
        .unwrap()
        .expect("the end of the stream arrives as well");
    assert_eq!(received.to_string(), sent);
}

#[test]
fn established_connections_survive_a_new_ruleset() {
    let world = World::new();
    capture(&world.pod, &CaptureConfig::pod(CaptureMode::Audit));
    let kept = world.pod.spawn(|| {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:15001")
                .await
                .unwrap();
            let client = dial(at(OUTSIDE, 80), None).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            install(&CaptureConfig::pod(CaptureMode::Enforce)).unwrap();
            let (client, server) = (client.into_std().unwrap(), server.into_std().unwrap());
            exchange(client, server)
        })
    });
    assert_eq!(kept.join().unwrap().unwrap(), "still here\n");
}

#[test]
fn loopback_and_inbound_connections_are_left_alone() {
    let world = World::new();
    capture(&world.pod, &CaptureConfig::pod(CaptureMode::Enforce));
    serve_tcp(&world.pod, &["[::]:8000"], "the agent's own server");
    for ip in ["127.0.0.1", "::1", POD, POD6] {
        assert_eq!(
            ask(&world.pod, ip, 8000).unwrap(),
            "the agent's own server",
            "{ip}"
        );
    }
    for ip in [POD, POD6] {
        assert_eq!(
            ask(&world.outside, ip, 8000).unwrap(),
            "the agent's own server",
            "{ip}"
        );
    }
    echo_udp(&world.pod, &["0.0.0.0:8000"], "udp answer");
    assert_eq!(
        query(&world.outside, None, at(POD, 8000)).unwrap(),
        "udp answer"
    );
}

// === The sidecar's own ports ===

#[test]
fn the_sidecars_ports_refuse_what_was_not_redirected() {
    let world = World::new();
    capture(&world.pod, &CaptureConfig::pod(CaptureMode::Audit));
    serve_tcp(
        &world.pod,
        &["[::]:15001", "[::]:15020", "[::]:15053"],
        "reached",
    );
    echo_udp(&world.pod, &["[::]:15053"], "reached");
    for ip in ["127.0.0.1", "::1", POD, POD6] {
        for port in [15001, 15020, 15053] {
            let error = ask(&world.pod, ip, port).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::ConnectionRefused,
                "{ip}:{port} from the pod"
            );
        }
        assert!(
            query(&world.pod, None, at(ip, 15053)).is_err(),
            "UDP {ip}:15053 from the pod"
        );
    }
    for ip in [POD, POD6] {
        for port in [15001, 15053] {
            let error = ask(&world.outside, ip, port).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::ConnectionRefused,
                "{ip}:{port} from outside"
            );
        }
        assert!(
            query(&world.outside, None, at(ip, 15053)).is_err(),
            "UDP from outside"
        );
        assert_eq!(
            ask(&world.outside, ip, 15020).unwrap(),
            "reached",
            "health from outside"
        );
    }
}

// === DNS ===

#[test]
fn dns_to_any_address_reaches_the_resolver() {
    let world = World::new();
    capture(&world.pod, &CaptureConfig::pod(CaptureMode::Enforce));
    serve_tcp(&world.pod, &["127.0.0.1:15053", "[::1]:15053"], "resolver");
    echo_udp(&world.pod, &["127.0.0.1:15053", "[::1]:15053"], "resolver");
    for ip in [OUTSIDE, OUTSIDE6, "127.0.0.53", "127.0.0.1", "::1", POD] {
        assert_eq!(
            query(&world.pod, None, at(ip, 53)).unwrap(),
            "resolver",
            "UDP {ip}"
        );
        assert_eq!(ask(&world.pod, ip, 53).unwrap(), "resolver", "TCP {ip}");
    }
}

#[test]
fn an_agents_query_and_the_sidecars_may_share_a_source_port() {
    let world = World::new();
    capture(&world.pod, &CaptureConfig::pod(CaptureMode::Enforce));
    echo_udp(&world.pod, &["127.0.0.1:15053"], "resolver");
    echo_udp(&world.outside, &["192.0.2.2:53"], "nameserver");
    let nameserver = at(OUTSIDE, 53);
    let marked = |port: u16| {
        step(
            &world.pod,
            &AS_SIDECAR,
            &format!("query-marked {port} {nameserver}"),
        )
    };
    assert_eq!(
        query(&world.pod, Some(40_001), nameserver).unwrap(),
        "resolver"
    );
    assert_eq!(marked(40_001), "nameserver", "after the agent's");
    assert_eq!(marked(40_002), "nameserver");
    assert_eq!(
        query(&world.pod, Some(40_002), nameserver).unwrap(),
        "resolver",
        "after ours"
    );
}

// === Datagrams ===

#[test]
fn in_audit_datagrams_pass_and_the_first_of_each_flow_is_a_gap() {
    let world = World::new();
    let pod = world.pod.clone();
    capture(&pod, &CaptureConfig::pod(CaptureMode::Audit));
    echo_udp(
        &world.outside,
        &["192.0.2.2:9000", "[2001:db8::2]:9000"],
        "answer",
    );
    let gaps = gaps_during(&pod, || {
        for ip in [OUTSIDE, OUTSIDE6] {
            let socket = udp(None, at(ip, 9000));
            for _ in 0..3 {
                assert_eq!(round_trip(&socket).unwrap(), "answer");
            }
        }
        // One-way datagrams have no answer that would settle the flow.
        let one_way = udp(None, at("203.0.113.9", 5000));
        for _ in 0..3 {
            one_way.send(b"metric").unwrap();
        }
        assert!(ping(OUTSIDE).unwrap(), "ping is answered");
    });
    let seen: Vec<_> = gaps.iter().map(told).collect();
    let expected = [
        "udp 192.0.2.1 > 192.0.2.2:9000 passed",
        "udp 2001:db8::1 > 2001:db8::2:9000 passed",
        "udp 192.0.2.1 > 203.0.113.9:5000 passed",
        "icmp 192.0.2.1 > 192.0.2.2 passed",
    ];
    assert_eq!(seen, expected);
    assert_eq!(gaps[0].uid, Some(0));
}

#[test]
fn in_enforce_datagrams_are_refused_at_once_unless_allowed() {
    let world = World::new();
    let pod = world.pod.clone();
    let mut config = CaptureConfig::pod(CaptureMode::Enforce);
    config.allowed = vec![
        Datagrams {
            network: "192.0.2.0/24".parse().unwrap(),
            protocol: DatagramKind::Udp {
                first: 9000,
                last: 9001,
            },
        },
        Datagrams {
            network: "203.0.113.0/24".parse().unwrap(),
            protocol: DatagramKind::Icmp,
        },
    ];
    capture(&pod, &config);
    echo_udp(
        &world.outside,
        &["192.0.2.2:9000", "192.0.2.2:9002"],
        "answer",
    );
    let gaps = gaps_during(&pod, || {
        assert_eq!(round_trip(&udp(None, at(OUTSIDE, 9000))).unwrap(), "answer");
        for target in [
            at(OUTSIDE, 9002),
            at(OUTSIDE6, 9000),
            at("224.0.0.251", 5353),
        ] {
            let begin = Instant::now();
            round_trip(&udp(None, target)).unwrap_err();
            assert!(
                begin.elapsed() < Duration::from_secs(1),
                "{target} is refused, not dropped"
            );
        }
        assert!(
            ping("203.0.113.9").is_ok(),
            "allowed out, though nobody answers"
        );
        assert!(ping(OUTSIDE).is_err());
    });
    let seen: Vec<_> = gaps.iter().map(told).collect();
    let expected = [
        "udp 192.0.2.1 > 192.0.2.2:9000 passed",
        "udp 192.0.2.1 > 192.0.2.2:9002 refused",
        "udp 2001:db8::1 > 2001:db8::2:9000 refused",
        "udp 192.0.2.1 > 224.0.0.251:5353 refused",
        "icmp 192.0.2.1 > 203.0.113.9 passed",
        "icmp 192.0.2.1 > 192.0.2.2 refused",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn quic_is_refused_at_once_in_both_modes_and_families() {
    for mode in [CaptureMode::Audit, CaptureMode::Enforce] {
        let world = World::new();
        let pod = world.pod.clone();
        capture(&pod, &CaptureConfig::pod(mode));
        let gaps = gaps_during(&pod, || {
            for ip in [OUTSIDE, OUTSIDE6] {
                let socket = udp(None, at(ip, 443));
                let refused = || {
                    let begin = Instant::now();
                    let _ = socket.send(b"initial");
                    let error = socket.recv(&mut [0; 16]).unwrap_err();
                    let at_once = begin.elapsed() < Duration::from_millis(500);
                    at_once && error.kind() == ErrorKind::ConnectionRefused
                };
                // The kernel sends so many ICMP errors a second for all of a machine (icmp_msgs_per_sec), and the tests beside this one cause some.
                assert!((0..5).any(|_| refused()), "an ICMP error came: {ip}");
            }
        });
        assert!(
            gaps.iter()
                .all(|gap| gap.refused && gap.destination_port == Some(443))
        );
        assert_eq!(gaps.len(), 2);
    }
}

#[test]
fn in_an_isolated_namespace_not_even_mark_and_uid_leave() {
    let world = World::new();
    capture(&world.pod, &CaptureConfig::isolated(CaptureMode::Enforce));
    sidecar_tcp(&world.pod, &["127.0.0.1:15001"]);
    outside_tcp(&world, 8080);
    let answer = step(
        &world.pod,
        &AS_SIDECAR,
        &format!("connect-marked {OUTSIDE}:8080"),
    );
    assert_eq!(answer, "redirected from 192.0.2.2:8080");
}

#[test]
fn gaps_that_come_faster_than_they_are_read_are_counted() {
    const SENT: usize = 20_000;
    let world = World::new();
    capture(&world.pod, &CaptureConfig::pod(CaptureMode::Enforce));
    let (delivered, unreported) = world.pod.run_async(|| async {
        let reader = GapReader::bind(NFLOG_GROUP).unwrap();
        // Not connected: a refusal of one packet would keep the next from leaving.
        let target = at(OUTSIDE, 9000);
        let socket = bound(None, target);
        for _ in 0..SENT {
            let _ = socket.send_to(b"flood", target);
        }
        let (events, mut receiver) = tokio::sync::mpsc::channel(64);
        tokio::spawn(reader.run(events, std::future::pending()));
        let (mut delivered, mut unreported) = (0, 0);
        for last in [false, true] {
            if last {
                // One more packet makes the gap in the numbering visible.
                let _ = socket.send_to(b"last", target);
            }
            let quiet = Duration::from_millis(500);
            while let Ok(Some(event)) = tokio::time::timeout(quiet, receiver.recv()).await {
                match event {
                    LogEvent::Packet(_) => delivered += 1,
                    LogEvent::Unreported(packets) => unreported += packets,
                }
            }
        }
        (delivered, unreported)
    });
    assert!(
        unreported > 0,
        "the kernel's queue can't hold {SENT} packets"
    );
    assert_eq!(delivered + usize::try_from(unreported).unwrap(), SENT + 1);
}

// === Steps in a process of their own ===

const AS_ROOT: [&str; 0] = [];
const AS_SIDECAR_UID: [&str; 3] = ["setpriv", "--reuid=64646", "--clear-groups"];
const AS_SIDECAR: [&str; 5] = [
    "setpriv",
    "--reuid=64646",
    "--clear-groups",
    "--inh-caps=-all,+net_admin",
    "--ambient-caps=-all,+net_admin",
];

/// Runs [`take_step`] in a process that `wrapper` starts inside the namespace.
fn step(namespace: &Namespace, wrapper: &[&'static str], what: &str) -> String {
    assert_eq!(SIDECAR_UID, 64_646, "the wrappers name the sidecar's uid");
    let what = what.to_owned();
    let wrapper = wrapper.to_vec();
    namespace.run(move || {
        let binary = std::env::current_exe().unwrap();
        let mut command = match wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        command.args(["--exact", "a_step_asked_for_by_another_test", "--nocapture"]);
        let output = output(command.env(STEP, &what));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .find_map(|line| {
                line.split_once("step says: ")
                    .map(|(_, answer)| answer.to_owned())
            })
            .unwrap_or_else(|| panic!("{what}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    })
}

#[test]
fn a_step_asked_for_by_another_test() {
    if let Ok(what) = std::env::var(STEP) {
        println!("step says: {}", take_step(&what));
    }
}

fn take_step(what: &str) -> String {
    let words: Vec<&str> = what.split(' ').collect();
    match words.as_slice() {
        ["install"] => match install(&CaptureConfig::pod(CaptureMode::Audit)) {
            Ok(()) => "installed".to_owned(),
            Err(error) => error.to_string(),
        },
        ["connect", target] => first_line(connect(target, None)),
        ["connect-marked", target] => first_line(connect(target, Some(EGRESS_MARK))),
        ["write-and-close", target] => {
            let mut stream = connect(target, Some(EGRESS_MARK));
            stream.set_nonblocking(true).unwrap();
            let mut sent = 0;
            while let Ok(more) = stream.write(&[7; 65_536]) {
                sent += more;
            }
            sent.to_string()
        }
        ["query-marked", port, target] => {
            let socket = bound(Some(port.parse().unwrap()), target.parse().unwrap());
            SockRef::from(&socket).set_mark(EGRESS_MARK).unwrap();
            socket
                .connect(target.parse::<SocketAddr>().unwrap())
                .unwrap();
            round_trip(&socket).unwrap_or_else(|error| error.to_string())
        }
        _ => panic!("unknown step {what}"),
    }
}

fn connect(target: &str, mark: Option<u32>) -> TcpStream {
    let address = target.parse().unwrap();
    let stream = runtime()
        .block_on(async { dial(address, mark).await?.into_std() })
        .unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

// === Peers ===

fn capture(namespace: &Namespace, config: &CaptureConfig) {
    let config = config.clone();
    namespace.run(move || install(&config)).unwrap();
}

/// Answers each connection with its original destination.
fn sidecar_tcp(namespace: &Namespace, addresses: &[&'static str]) {
    listen(namespace, addresses, |stream| {
        let runtime = runtime();
        let _entered = runtime.enter();
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
        match original_dst(&stream) {
            Ok(original) => format!("redirected from {original}"),
            Err(error) => error.to_string(),
        }
    });
}

fn outside_tcp(world: &World, port: u16) {
    assert_eq!(port, 8080);
    serve_tcp(&world.outside, &["[::]:8080"], "direct");
}

fn serve_tcp(namespace: &Namespace, addresses: &[&'static str], answer: &'static str) {
    listen(namespace, addresses, move |_| answer.to_owned());
}

fn listen(
    namespace: &Namespace,
    addresses: &[&'static str],
    answer: impl Fn(&TcpStream) -> String + Clone + Send + 'static,
) {
    for address in addresses.iter().copied() {
        let answer = answer.clone();
        let listener = namespace.run(move || TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let answer = answer(&stream);
                stream.set_nonblocking(false).unwrap();
                let _ = writeln!(stream, "{answer}");
            }
        });
    }
}

fn echo_udp(namespace: &Namespace, addresses: &[&'static str], answer: &'static str) {
    for address in addresses.iter().copied() {
        let socket = namespace.run(move || UdpSocket::bind(address).unwrap());
        std::thread::spawn(move || {
            while let Ok((_, peer)) = socket.recv_from(&mut [0; 512]) {
                let _ = socket.send_to(answer.as_bytes(), peer);
            }
        });
    }
}

fn ask(namespace: &Namespace, ip: &str, port: u16) -> std::io::Result<String> {
    let target = at(ip, port);
    namespace.run(move || TcpStream::connect_timeout(&target, WAIT).map(first_line))
}

fn first_line(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text.trim_end().to_owned()
}

fn exchange(mut client: TcpStream, mut server: TcpStream) -> std::io::Result<String> {
    server.set_nonblocking(false)?;
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(WAIT))?;
    server.write_all(b"still here\n")?;
    drop(server);
    let mut text = String::new();
    client.read_to_string(&mut text)?;
    Ok(text)
}

fn query(namespace: &Namespace, port: Option<u16>, target: SocketAddr) -> std::io::Result<String> {
    namespace.run(move || round_trip(&udp(port, target)))
}

fn udp(port: Option<u16>, target: SocketAddr) -> UdpSocket {
    let socket = bound(port, target);
    socket.connect(target).unwrap();
    socket
}

fn bound(port: Option<u16>, target: SocketAddr) -> UdpSocket {
    let any = if target.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = UdpSocket::bind(at(any, port.unwrap_or(0))).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket
}

fn round_trip(socket: &UdpSocket) -> std::io::Result<String> {
    socket.send(b"question")?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Sends one echo request; whether an answer came within half a second.
fn ping(ip: &str) -> std::io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let request = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    socket.send_to(&request, &at(ip, 0).into())?;
    Ok((&socket).read(&mut [0; 128]).is_ok())
}

fn told(gap: &DatagramGap) -> String {
    let port = gap
        .destination_port
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let fate = if gap.refused { "refused" } else { "passed" };
    assert_eq!(gap.source_port.is_some(), gap.transport == Transport::Udp);
    format!(
        "{} {} > {}{port} {fate}",
        gap.transport.name(),
        gap.source,
        gap.destination
    )
}
