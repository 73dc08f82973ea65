//! Ways out, tried against the capture rules in a real kernel: each test has its own pod and outside world, and what leaves the pod is seen outside on the wire. Needs root and the tools
//! `ip` and `nft`. The table in docs/security.md cites these tests.

#![allow(clippy::unwrap_used)]

#[path = "support/netns.rs"]
mod netns;

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use chaperone_crds::pod::NFLOG_GROUP;
use chaperone_sidecar::capture::{
    CaptureConfig, CaptureMode, DatagramKind, Datagrams, GapReader, install,
};
use netns::{Namespace, OUTSIDE, OUTSIDE6, POD, POD6, World, at, gaps_during};
use socket2::{Domain, Protocol, Socket, Type};

/// Longest wait for what should not come.
const WAIT: Duration = Duration::from_millis(700);
/// How long the wire is read after the last attempt.
const SETTLE: Duration = Duration::from_millis(250);
/// Protocols that are neither TCP, UDP nor ICMP: IGMP, IP in IP, DCCP, IPv6 in IP, GRE, ESP, L2TP, SCTP, UDP-Lite, experiments.
const OTHERS: [i32; 10] = [2, 4, 33, 41, 47, 50, 115, 132, 136, 253];
/// Every frame (`ETH_P_ALL` of `linux/if_ether.h`), in network byte order.
const ALL_FRAMES: i32 = 0x0300;

fn captured(mode: CaptureMode) -> World {
    let world = World::new();
    let config = CaptureConfig::pod(mode);
    world.pod.run(move || install(&config)).unwrap();
    world
}

/// Packets of the pod that reached the wire while `work` ran in it: `protocol destination`, without what IPv6 needs to work at all.
fn left(world: &World, work: impl FnOnce() + Send + 'static) -> Vec<String> {
    let (stop, stopped) = mpsc::channel::<()>();
    let (ready, sniffing) = mpsc::channel::<()>();
    let sniffer = world.outside.spawn(move || {
        let wire = Socket::new(
            Domain::PACKET,
            Type::DGRAM,
            Some(Protocol::from(ALL_FRAMES)),
        );
        let wire = wire.expect("packet sockets need root");
        wire.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        ready.send(()).unwrap();
        let (mut seen, mut buffer) = (Vec::new(), [0; 2048]);
        while stopped.try_recv().is_err() {
            if let Ok(length) = (&wire).read(&mut buffer) {
                seen.extend(of_pod(&buffer[..length]));
            }
        }
        seen
    });
    sniffing.recv().unwrap();
    world.pod.run(work);
    std::thread::sleep(SETTLE);
    stop.send(()).unwrap();
    sniffer.join().unwrap()
}

fn of_pod(packet: &[u8]) -> Option<String> {
    let (source, destination, protocol, body): (IpAddr, IpAddr, u8, &[u8]) =
        match packet.first()? >> 4 {
            4 => (
                Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?).into(),
                Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?).into(),
                *packet.get(9)?,
                packet.get(20..)?,
            ),
            6 => (
                Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?).into(),
                Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?).into(),
                *packet.get(6)?,
                packet.get(40..)?,
            ),
            _ => return None,
        };
    // Router and neighbour discovery, and multicast listener reports behind their hop-by-hop header.
    let needed = match protocol {
        58 => matches!(body.first(), Some(133..=136 | 143)),
        0 => matches!((body.first(), body.get(8)), (Some(58), Some(143))),
        _ => false,
    };
    let ours = [OUTSIDE, OUTSIDE6, OUTSIDE_LINK_LOCAL].map(|ip| ip.parse::<IpAddr>().unwrap());
    let of_outside = ours.contains(&source);
    (!needed && !of_outside).then(|| format!("{protocol} {destination}"))
}

/// The tests give the outside's interface this address.
const OUTSIDE_LINK_LOCAL: &str = "fe80::2";

/// Sends one packet of this protocol without looking back.
fn send_raw(ip: &str, protocol: i32, payload: &[u8]) {
    let domain = Domain::for_address(at(ip, 0));
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))).unwrap();
    let _ = socket.send_to(payload, &at(ip, 0).into());
}

fn serve(namespace: &Namespace, address: &'static str) {
    let listener = namespace.run(move || TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.write_all(b"reached\n");
        }
    });
}

// === Protocols ===

#[test]
fn in_enforce_no_other_ip_protocol_leaves_and_each_is_a_refused_gap() {
    let world = captured(CaptureMode::Enforce);
    let pod = world.pod.clone();
    let (told, heard) = mpsc::channel();
    let seen = {
        let gaps = move || {
            for protocol in OTHERS {
                send_raw(OUTSIDE, protocol, b"sixteen bytes...");
                send_raw(OUTSIDE6, protocol, b"sixteen bytes...");
            }
        };
        left(&world, move || {
            let _ = told.send(gaps_during(&pod, gaps));
        })
    };
    assert!(seen.is_empty(), "{seen:?}");
    let gaps = heard.recv().unwrap();
    assert!(gaps.iter().all(|gap| gap.refused), "{gaps:?}");
    for ip in [OUTSIDE, OUTSIDE6] {
        let of: Vec<_> = gaps
            .iter()
            .filter(|gap| gap.destination == ip.parse::<IpAddr>().unwrap())
            .collect();
        assert!(of.len() >= OTHERS.len() - 1, "{ip}: {of:?}");
    }
}

#[test]
fn in_audit_other_ip_protocols_pass_and_the_first_packet_of_each_is_a_gap() {
    let world = captured(CaptureMode::Audit);
    let pod = world.pod.clone();
    let gaps = gaps_during(&pod, || {
        for protocol in [47, 132, 253] {
            send_raw(OUTSIDE, protocol, b"sixteen bytes...");
        }
    });
    assert_eq!(gaps.len(), 3, "{gaps:?}");
    assert!(
        gaps.iter()
            .all(|gap| !gap.refused && gap.transport.name() == "other"),
        "{gaps:?}"
    );
}

#[test]
fn multipath_tcp_is_captured_like_tcp() {
    let world = captured(CaptureMode::Enforce);
    serve(&world.outside, "[::]:8080");
    let seen = left(&world, || {
        for ip in [OUTSIDE, OUTSIDE6] {
            let domain = Domain::for_address(at(ip, 0));
            // A kernel without it has no such way out.
            if let Ok(socket) = Socket::new(domain, Type::STREAM, Some(Protocol::from(262))) {
                let _ = socket.connect_timeout(&at(ip, 8080).into(), WAIT);
            }
        }
    });
    assert!(seen.is_empty(), "{seen:?}");
}

// === Destinations ===

#[test]
fn multicast_broadcast_and_link_local_datagrams_do_not_leave_in_enforce() {
    let world = captured(CaptureMode::Enforce);
    let seen = left(&world, || {
        let v4 = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        v4.set_broadcast(true).unwrap();
        let group = Ipv4Addr::new(224, 0, 0, 251);
        let _ = v4.join_multicast_v4(&group, &POD.parse().unwrap());
        for ip in ["224.0.0.251", "239.1.2.3", "255.255.255.255", "192.0.2.255"] {
            let _ = v4.send_to(b"data", &at(ip, 5353).into());
        }
        let v6 = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
        v6.bind_device(Some(b"eth0")).unwrap();
        for ip in ["ff02::fb", "ff05::1", OUTSIDE_LINK_LOCAL] {
            let _ = v6.send_to(b"data", &at(ip, 5353).into());
        }
        // Membership reports come a moment later.
        std::thread::sleep(WAIT);
    });
    assert!(seen.is_empty(), "{seen:?}");
}

#[test]
fn tcp_to_link_local_mapped_and_broadcast_addresses_does_not_leave() {
    for mode in [CaptureMode::Audit, CaptureMode::Enforce] {
        let world = captured(mode);
        world
            .outside
            .tool("ip", &["addr", "add", "fe80::2/64", "dev", "eth0", "nodad"]);
        serve(&world.outside, "[::]:8080");
        let seen = left(&world, || {
            for ip in [
                OUTSIDE_LINK_LOCAL,
                "::ffff:192.0.2.2",
                "192.0.2.255",
                "64:ff9b::c000:202",
                "240.0.0.1",
            ] {
                let socket =
                    Socket::new(Domain::for_address(at(ip, 0)), Type::STREAM, None).unwrap();
                if ip == OUTSIDE_LINK_LOCAL {
                    socket.bind_device(Some(b"eth0")).unwrap();
                }
                let _ = socket.connect_timeout(&at(ip, 8080).into(), WAIT);
            }
        });
        assert!(seen.is_empty(), "{mode:?}: {seen:?}");
    }
}

#[test]
fn a_socket_bound_to_the_device_or_its_address_is_captured_all_the_same() {
    let world = captured(CaptureMode::Enforce);
    serve(&world.outside, "[::]:8080");
    let seen = left(&world, || {
        for (ip, own) in [(OUTSIDE, POD), (OUTSIDE6, POD6)] {
            for kind in [Type::STREAM, Type::DGRAM] {
                let socket = Socket::new(Domain::for_address(at(ip, 0)), kind, None).unwrap();
                socket.set_write_timeout(Some(WAIT)).unwrap();
                socket.bind_device(Some(b"eth0")).unwrap();
                socket.bind(&at(own, 0).into()).unwrap();
                let _ = socket.connect_timeout(&at(ip, 8080).into(), WAIT);
                let _ = (&socket).write(b"data");
            }
        }
    });
    assert!(seen.is_empty(), "{seen:?}");
}

#[test]
fn loopback_in_all_its_forms_reaches_no_port_of_the_sidecar() {
    let world = captured(CaptureMode::Audit);
    for address in ["[::]:15001", "[::]:15020", "[::]:15053"] {
        serve(&world.pod, address);
    }
    for ip in [
        "127.0.0.2",
        "127.255.255.254",
        "0.0.0.0",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:127.9.9.9",
        "::ffff:192.0.2.1",
    ] {
        for port in [15001, 15020, 15053] {
            let error = world
                .pod
                .run(move || TcpStream::connect_timeout(&at(ip, port), WAIT))
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{ip}:{port}");
        }
    }
}

// === Shapes ===

#[test]
fn fragments_and_extension_headers_do_not_leave_in_enforce() {
    let world = captured(CaptureMode::Enforce);
    let seen = left(&world, || {
        for ip in [OUTSIDE, OUTSIDE6] {
            let _ = UdpSocket::bind(if ip == OUTSIDE { "0.0.0.0:0" } else { "[::]:0" })
                .unwrap()
                .send_to(&[7; 4000], at(ip, 9000));
        }
        for protocol in [6, 17, 1] {
            send_fragment_v4(protocol);
        }
        let options = [17, 0, 1, 4, 0, 0, 0, 0];
        for next in [0, 60, 43] {
            send_v6(next, &options);
        }
        // The second fragment of a datagram whose first never comes, and a first one.
        send_v6(44, &[17, 0, 0, 9, 0, 0, 0, 1]);
        send_v6(44, &[6, 0, 0, 1, 0, 0, 0, 2]);
    });
    assert!(seen.is_empty(), "{seen:?}");
}

/// A fragment with offset 8 of this protocol, header and all.
fn send_fragment_v4(protocol: u8) {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    socket.set_header_included_v4(true).unwrap();
    let mut packet = vec![0x45, 0, 0, 28, 0, 9, 0, 1, 64, protocol, 0, 0];
    packet.extend(POD.parse::<Ipv4Addr>().unwrap().octets());
    packet.extend(OUTSIDE.parse::<Ipv4Addr>().unwrap().octets());
    packet.extend(b"payload!");
    let _ = socket.send_to(&packet, &at(OUTSIDE, 0).into());
}

/// A datagram behind one extension header, header and all.
fn send_v6(next: u8, extension: &[u8; 8]) {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(255))).unwrap();
    let mut packet = vec![0x60, 0, 0, 0, 0, 20, next, 64];
    packet.extend(POD6.parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(OUTSIDE6.parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(extension);
    packet.extend([0x23, 0x28, 0x23, 0x28, 0, 12, 0, 0, 1, 2, 3, 4]);
    let _ = socket.send_to(&packet, &at(OUTSIDE6, 0).into());
}

#[test]
fn in_audit_a_datagram_in_fragments_is_one_gap() {
    let world = captured(CaptureMode::Audit);
    let gaps = gaps_during(&world.pod, || {
        for ip in [OUTSIDE, OUTSIDE6] {
            let socket =
                UdpSocket::bind(if ip == OUTSIDE { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
            for _ in 0..2 {
                socket.send_to(&[7; 4000], at(ip, 9000)).unwrap();
            }
        }
    });
    let ports: Vec<_> = gaps
        .iter()
        .map(|gap| (gap.destination_port, gap.refused))
        .collect();
    assert_eq!(ports, [(Some(9000), false); 2], "{gaps:?}");
}

// === Time ===

#[test]
fn connections_that_exist_before_capture_carry_nothing_out_any_more() {
    for mode in [CaptureMode::Audit, CaptureMode::Enforce] {
        let world = World::new();
        let listener = world
            .outside
            .run(|| TcpListener::bind("[::]:8080").unwrap());
        let connections: Vec<TcpStream> = [OUTSIDE, OUTSIDE6]
            .into_iter()
            .map(|ip| {
                world
                    .pod
                    .run(move || TcpStream::connect(at(ip, 8080)).unwrap())
            })
            .collect();
        let peers: Vec<TcpStream> = connections
            .iter()
            .map(|_| listener.accept().unwrap().0)
            .collect();
        let config = CaptureConfig::pod(mode);
        world.pod.run(move || install(&config)).unwrap();
        for (mut connection, mut peer) in connections.into_iter().zip(peers) {
            let _ = connection.write_all(b"secret");
            peer.set_read_timeout(Some(WAIT)).unwrap();
            let read = peer.read(&mut [0; 16]);
            assert!(!matches!(read, Ok(1..)), "{mode:?}: {read:?}");
        }
    }
}

#[test]
fn datagram_sockets_connected_before_capture_are_refused_in_enforce() {
    let world = World::new();
    let socket = world.pod.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(at(OUTSIDE, 9000)).unwrap();
        socket.send(b"before").unwrap();
        socket
    });
    let config = CaptureConfig::pod(CaptureMode::Enforce);
    world.pod.run(move || install(&config)).unwrap();
    let seen = left(&world, move || {
        for _ in 0..3 {
            let _ = socket.send(b"after");
        }
    });
    assert!(seen.is_empty(), "{seen:?}");
}

// === While nobody reads the packet log ===

/// Set in a process of its own that reads the packet log until it is killed.
const READER: &str = "CHAPERONE_TEST_READER";

#[test]
fn a_reader_asked_for_by_another_test() {
    if std::env::var_os(READER).is_some() {
        let _reader = GapReader::bind(NFLOG_GROUP).unwrap();
        println!("reader is there");
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// A process in the pod that reads the packet log.
fn reader(pod: &Namespace) -> Child {
    let mut child = pod.run(|| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_reader_asked_for_by_another_test"])
            .arg("--nocapture")
            .env(READER, "yes")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let said = BufReader::new(child.stdout.take().unwrap());
    let mut lines = said.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("reader is there")));
    child
}

/// One flow of datagrams that is new and one that is not, an echo request and another protocol.
fn send_datagrams(old: &UdpSocket) {
    let _ = old.send_to(b"old flow", at(OUTSIDE, 9000));
    for (ip, any) in [(OUTSIDE, "0.0.0.0:0"), (OUTSIDE6, "[::]:0")] {
        let new = UdpSocket::bind(any).unwrap();
        let _ = new.send_to(b"new flow", at(ip, 9000));
    }
    send_raw(OUTSIDE, 1, &[8, 0, 0xf7, 0xfd, 0, 1, 0, 1]);
    send_raw(OUTSIDE, 132, b"another protocol");
}

/// Returns once IPv6 knows the way: until then datagrams wait.
fn know_neighbour(world: &World) {
    let socket = world.outside.run(|| UdpSocket::bind("[::]:9000").unwrap());
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    for _ in 0..100 {
        world.pod.run(|| {
            let first = UdpSocket::bind("[::]:0").unwrap();
            first.send_to(b"first", at(OUTSIDE6, 9000)).unwrap();
        });
        if socket.recv(&mut [0; 16]).is_ok() {
            return;
        }
    }
    panic!("the outside can't be reached over IPv6");
}

#[test]
fn what_passes_unread_does_so_only_while_somebody_reads_the_log() {
    let networks = ["192.0.2.0/24", "2001:db8::/32"].map(|network| network.parse().unwrap());
    let allowed = networks.into_iter().flat_map(|network| {
        let kinds = [
            DatagramKind::Udp {
                first: 1,
                last: 9999,
            },
            DatagramKind::Icmp,
        ];
        kinds.map(|protocol| Datagrams { network, protocol })
    });
    let enforce = CaptureConfig {
        allowed: allowed.collect(),
        ..CaptureConfig::pod(CaptureMode::Enforce)
    };
    let read = [
        (
            CaptureConfig::pod(CaptureMode::Audit),
            vec![
                "1 192.0.2.2",
                "132 192.0.2.2",
                "17 192.0.2.2",
                "17 192.0.2.2",
                "17 2001:db8::2",
            ],
        ),
        (
            enforce,
            vec![
                "1 192.0.2.2",
                "17 192.0.2.2",
                "17 192.0.2.2",
                "17 2001:db8::2",
            ],
        ),
    ];
    for (config, expected) in read {
        let world = World::new();
        know_neighbour(&world);
        world.pod.run(move || install(&config)).unwrap();
        let old = world.pod.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        let sent = || {
            let old = old.try_clone().unwrap();
            let mut seen = left(&world, move || send_datagrams(&old));
            seen.sort();
            seen
        };
        let nothing: [&str; 0] = [];
        assert_eq!(sent(), nothing, "before there is a reader");
        let mut first = reader(&world.pod);
        assert_eq!(sent(), expected, "with a reader");
        first.kill().unwrap();
        first.wait().unwrap();
        assert_eq!(sent(), nothing, "after it was killed");
        let mut second = reader(&world.pod);
        assert_eq!(sent(), expected, "with another reader");
        second.kill().unwrap();
        second.wait().unwrap();
    }
}

// === Exhaustion ===

#[test]
fn without_ephemeral_ports_or_a_listener_connections_fail_and_none_leaves() {
    let world = captured(CaptureMode::Enforce);
    serve(&world.outside, "[::]:8080");
    // No sidecar listens: as when it is dead, or out of descriptors with a full backlog.
    world.pod.tool(
        "sysctl",
        &["-qw", "net.ipv4.ip_local_port_range=40000 40009"],
    );
    let seen = left(&world, || {
        let begin = Instant::now();
        for _ in 0..50 {
            let target: SocketAddr = at(OUTSIDE, 8080);
            let error = TcpStream::connect_timeout(&target, WAIT).unwrap_err();
            assert_ne!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        assert!(begin.elapsed() < 50 * WAIT);
    });
    assert!(seen.is_empty(), "{seen:?}");
}

#[test]
fn families_that_bypass_the_packet_filter_need_rights_that_agents_lack() {
    let world = captured(CaptureMode::Enforce);
    // The outside takes the place of another host: what a process without capabilities can open is listed by the kernel's own answers.
    let answers = world.pod.tool(
        "setpriv",
        &[
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "/usr/bin/python3",
            "-c",
            FAMILIES,
        ],
    );
    assert_eq!(
        answers.trim(),
        "packet refused, raw refused, xdp refused, mark refused"
    );
}

const FAMILIES: &str = "
import socket
def tried(what):
    try:
        what(); return 'opened'
    except OSError:
        return 'refused'
print(', '.join((
    'packet ' + tried(lambda: socket.socket(17, socket.SOCK_RAW, 0x300)),
    'raw ' + tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)),
    'xdp ' + tried(lambda: socket.socket(44, socket.SOCK_RAW, 0)),
    'mark ' + tried(lambda: socket.socket().setsockopt(socket.SOL_SOCKET, 36, 0x43686170)))))
";
