//! The network namespace of the command: made, wired to the sidecar, and entered by a thread that starts the command in it.
//!
//! The namespace has one interface, loopback, and a default route over it, so that a connection to anywhere is routed, and the packet filter redirects it. Unsharing is per
//! thread: one thread lives in the new namespace, binds the listeners there, gives up the capabilities that could undo capture, and starts the command.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::mpsc,
    thread,
};

use caps::{CapSet, Capability};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};

use crate::{
    capture::{self, CaptureConfig, CaptureMode, GapReader},
    listen::Listeners,
    memory::with_huge_pages,
};

/// Index of the loopback interface: the first of every namespace.
const LOOPBACK: u32 = 1;
/// The command's own addresses. Nothing outside its namespace sees them (RFC 6598; RFC 4193).
const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xc4a9, 0, 0, 0, 0, 0, 1);

/// Capabilities with which a command could undo its capture: change the packet filter, leave the namespace, or read the sidecar.
const GIVEN_UP: [Capability; 9] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_MODULE,
    Capability::CAP_SYS_RAWIO,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
];

/// Why the command cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The kernel refused a namespace.
    #[error(
        "{what}: {source}; run as root, or allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1)"
    )]
    Unshare {
        /// Which namespace.
        what: &'static str,
        /// Why.
        source: nix::Error,
    },
    /// The user namespace cannot be mapped.
    #[error("cannot map user and group: {0}")]
    Map(io::Error),
    /// Loopback cannot be set up.
    #[error("cannot set up the namespace's loopback: {0}")]
    Link(rtnetlink::Error),
    /// A socket cannot be made.
    #[error("cannot bind in the namespace: {0}")]
    Bind(#[from] io::Error),
    /// The packet filter refused.
    #[error(transparent)]
    Capture(#[from] capture::CaptureError),
    /// A capability cannot be given up.
    #[error("cannot give up a capability: {0}")]
    Capability(String),
    /// The command cannot be started.
    #[error("cannot start {program:?}: {source}")]
    Start {
        /// Which program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Asked twice.
    #[error("the namespace's {0} were taken already")]
    Taken(&'static str),
}

/// Makes a process without privileges able to make namespaces: a user namespace that maps its own user and group. Root needs none. Call it while the process has one
/// thread.
///
/// # Errors
/// Where the kernel does not allow it.
pub fn become_capable() -> Result<(), NamespaceError> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|source| NamespaceError::Unshare {
        what: "user namespace",
        source,
    })?;
    let map = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(NamespaceError::Map)
    };
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("{uid} {uid} 1"))?;
    map("gid_map", format!("{gid} {gid} 1"))
}

/// A captured namespace, and the thread that lives in it.
pub(super) struct Captured {
    listeners: Option<Listeners>,
    gaps: Option<GapReader>,
    start: Option<mpsc::Sender<Command>>,
    started: mpsc::Receiver<Result<Child, NamespaceError>>,
}

/// Makes the namespace.
pub(super) fn enter() -> Result<Captured, NamespaceError> {
    let (ready, made) = mpsc::channel();
    let (start, commands) = mpsc::channel();
    let (children, started) = mpsc::channel();
    thread::Builder::new()
        .name("namespace".to_owned())
        .spawn(move || {
            let prepared = prepare();
            let failed = prepared.is_err();
            if ready.send(prepared).is_err() || failed {
                return;
            }
            if let Ok(command) = commands.recv() {
                let _ = children.send(start_confined(command));
            }
        })?;
    let (listeners, gaps) = made
        .recv()
        .map_err(|_| io::Error::other("the namespace's thread ended"))??;
    Ok(Captured {
        listeners: Some(listeners),
        gaps: Some(gaps),
        start: Some(start),
        started,
    })
}

impl Captured {
    /// The sockets in it.
    pub(super) fn listeners(&mut self) -> Result<Listeners, NamespaceError> {
        self.listeners
            .take()
            .ok_or(NamespaceError::Taken("listeners"))
    }

    /// Its packet filter's log.
    pub(super) fn gaps(&mut self) -> Result<GapReader, NamespaceError> {
        self.gaps.take().ok_or(NamespaceError::Taken("packet log"))
    }

    /// Starts the command in it, without the capabilities that could undo capture, and as the user who called sudo.
    pub(super) fn spawn(
        &mut self,
        command: &[String],
        environment: Vec<(&'static str, String)>,
    ) -> Result<Child, NamespaceError> {
        let start = self.start.take().ok_or(NamespaceError::Taken("command"))?;
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no command").into());
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(environment);
        if let (Some(uid), Some(gid)) = (sudo("SUDO_UID"), sudo("SUDO_GID")) {
            command.uid(uid).gid(gid);
        }
        let gone = || io::Error::other("the namespace's thread ended");
        start.send(command).map_err(|_| gone())?;
        self.started.recv().map_err(|_| gone())?
    }
}

fn sudo(name: &str) -> Option<u32> {
    if !geteuid().is_root() {
        return None;
    }
    std::env::var(name).ok()?.parse().ok()
}

fn prepare() -> Result<(Listeners, GapReader), NamespaceError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|source| NamespaceError::Unshare {
        what: "network namespace",
        source,
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(set_up_loopback())?;
    // Nothing is exempt: the sidecar dials from another namespace. Datagrams have no way out, so they are refused in words in both modes.
    let config = CaptureConfig::isolated(CaptureMode::Enforce);
    capture::install(&config)?;
    let gaps = GapReader::bind(config.log_group)?;
    Ok((Listeners::bind()?, gaps))
}

async fn set_up_loopback() -> Result<(), NamespaceError> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
    handle
        .link()
        .set(up)
        .execute()
        .await
        .map_err(NamespaceError::Link)?;
    let addresses = handle.address();
    addresses
        .add(LOOPBACK, ADDRESS_V4.into(), 32)
        .execute()
        .await
        .map_err(NamespaceError::Link)?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(LOOPBACK)
        .pref_source(ADDRESS_V4)
        .build();
    handle
        .route()
        .add(route)
        .execute()
        .await
        .map_err(NamespaceError::Link)?;
    // A kernel without IPv6 has none to capture.
    if addresses
        .add(LOOPBACK, ADDRESS_V6.into(), 128)
        .execute()
        .await
        .is_ok()
    {
        let route = RouteMessageBuilder::<Ipv6Addr>::new()
            .output_interface(LOOPBACK)
            .build();
        handle
            .route()
            .add(route)
            .execute()
            .await
            .map_err(NamespaceError::Link)?;
    }
    task.abort();
    Ok(())
}

/// The bounding set is the thread's own, and the command inherits it.
fn start_confined(mut command: Command) -> Result<Child, NamespaceError> {
    for capability in GIVEN_UP {
        let held = caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false);
        if held {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(|error| NamespaceError::Capability(format!("{capability}: {error}")))?;
        }
    }
    caps::clear(None, CapSet::Inheritable)
        .map_err(|error| NamespaceError::Capability(error.to_string()))?;
    let program = command.get_program().to_string_lossy().into_owned();
    with_huge_pages(|| command.spawn()).map_err(|source| NamespaceError::Start { program, source })
}
