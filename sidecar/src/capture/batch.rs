//! The rules as one atomic nfnetlink batch, and what the kernel answered.
//!
//! Owns installing and removing the table. Refuses partial success: the kernel
//! applies a batch whole or not at all, and an error names the first message
//! that it refused.

use std::io;

use nix::errno::Errno;
use nix::libc::{
    NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING, NF_INET_PRE_ROUTING,
    NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, NFPROTO_INET, NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWTABLE, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE,
    NLM_F_REQUEST, NLMSG_ERROR,
};

use super::encode::{expressions, modules};
use super::netlink::{Attributes, NetfilterSocket, READ_BUFFER, messages, write_message};
use super::ruleset::{Chain, ChainKind, Hook, Policy, Rule, Ruleset, TABLE, ruleset};
use super::{CaptureConfig, MAX_ALLOWED};

/// `NFT_TABLE_F_OWNER` of `linux/netfilter/nf_tables.h`.
const TABLE_OWNED: u32 = 2;
const OWNED_TABLE: &str = "a table that goes with its process";

/// Why capture is not in place.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The process may not change the network namespace's rules.
    #[error(
        "the kernel does not let this process change packet filter rules: \
         it needs CAP_NET_ADMIN (NET_ADMIN in the container's securityContext.capabilities.add)"
    )]
    NotPermitted,
    /// The kernel lacks a part.
    #[error(
        "the kernel can't do {what}: on the node, load {modules} (modprobe) or use a kernel \
         with nftables"
    )]
    Unsupported {
        /// The message that failed.
        what: String,
        /// Modules that provide it, separated by commas.
        modules: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a message for another reason.
    #[error("the kernel refused {what}")]
    Refused {
        /// The message that failed.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The netlink socket failed.
    #[error("netlink failed while trying to {step}")]
    Netlink {
        /// What was being done.
        step: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The packet log is somebody else's, or the process may not read one.
    #[error(
        "the kernel does not let this process read packet log {group}: either another process in the same network namespace reads it (is there a second sidecar?), or CAP_NET_ADMIN is missing"
    )]
    LogRefused {
        /// NFLOG group.
        group: u16,
    },
    /// The kernel has no tables that go with a process.
    #[error(
        "the kernel can't tie packet filter rules to a process, without which datagrams would pass unrecorded while the sidecar is dead: use Linux 5.12 or later on the node"
    )]
    Unowned {
        /// The kernel's answer.
        source: io::Error,
    },
    /// More allowed destinations than one batch holds.
    #[error(
        "{given} destinations are allowed for UDP and ICMP, at most {MAX_ALLOWED} can be: \
         merge neighbouring networks"
    )]
    TooManyAllowed {
        /// How many there were.
        given: usize,
    },
    /// A range of ports that contains none.
    #[error("the allowed UDP port range {first}-{last} is empty: put the lower port first")]
    EmptyPortRange {
        /// Lowest port.
        first: u16,
        /// Highest port.
        last: u16,
    },
}

/// Replaces the table in the current network namespace by the rules of `config`,
/// atomically. Safe to repeat. Flows already redirected stay so.
///
/// # Errors
/// As [`CaptureError`]; the rules that were there before then still are.
pub fn install(config: &CaptureConfig) -> Result<(), CaptureError> {
    check(config)?;
    let rules = ruleset(config);
    let mut batch = Batch::new(rules.table);
    batch.replace_table();
    batch.chains(&rules);
    batch.commit(&open()?)
}

/// Adds a table that goes with `socket`: when that is closed, and be it because its process died, the kernel removes the table.
///
/// # Errors
/// As [`CaptureError`]; [`CaptureError::Unowned`] where the kernel can't.
pub(super) fn install_owned(rules: &Ruleset, socket: &NetfilterSocket) -> Result<(), CaptureError> {
    let mut batch = Batch::new(rules.table);
    batch.owned_table();
    batch.chains(rules);
    batch.commit(socket)
}

/// Removes the table from the current network namespace, if it is there.
///
/// # Errors
/// As [`CaptureError`].
pub fn remove() -> Result<(), CaptureError> {
    let mut batch = Batch::new(TABLE);
    batch.table("the table to remove", NFT_MSG_NEWTABLE, NLM_F_CREATE);
    batch.table("removing the table", NFT_MSG_DELTABLE, 0);
    batch.commit(&open()?)
}

fn open() -> Result<NetfilterSocket, CaptureError> {
    NetfilterSocket::open().map_err(|source| failed("open a socket", source))
}

fn check(config: &CaptureConfig) -> Result<(), CaptureError> {
    let given = config.allowed.len().saturating_add(config.denied.len());
    if given > MAX_ALLOWED {
        return Err(CaptureError::TooManyAllowed { given });
    }
    for allowed in config.allowed.iter().chain(&config.denied) {
        if let super::DatagramKind::Udp { first, last } = allowed.protocol
            && first > last
        {
            return Err(CaptureError::EmptyPortRange { first, last });
        }
    }
    Ok(())
}

/// One message of a batch, as an error would describe it.
struct Entry {
    what: String,
    modules: String,
}

struct Batch {
    table: &'static str,
    bytes: Vec<u8>,
    /// Entry `n` has sequence number `n + 1`; 0 is the batch itself.
    entries: Vec<Entry>,
}

impl Batch {
    fn new(table: &'static str) -> Self {
        let mut batch = Self {
            table,
            bytes: Vec::new(),
            entries: Vec::new(),
        };
        batch.bracket(NFNL_MSG_BATCH_BEGIN);
        batch
    }

    /// "Add" makes sure there is a table, so that "delete" succeeds.
    fn replace_table(&mut self) {
        self.table("the table", NFT_MSG_NEWTABLE, NLM_F_CREATE);
        self.table("replacing the table", NFT_MSG_DELTABLE, 0);
        self.table("the table", NFT_MSG_NEWTABLE, NLM_F_CREATE);
    }

    fn table(&mut self, what: &str, kind: i32, flags: i32) {
        let mut body = Attributes::default();
        body.text(1, self.table);
        self.push(kind, flags, &body, what.to_owned(), "nf_tables".to_owned());
    }

    fn owned_table(&mut self) {
        let mut body = Attributes::default();
        body.text(1, self.table).be32(2, TABLE_OWNED);
        let what = OWNED_TABLE.to_owned();
        self.push(
            NFT_MSG_NEWTABLE,
            NLM_F_CREATE,
            &body,
            what,
            "nf_tables".to_owned(),
        );
    }

    fn chains(&mut self, rules: &Ruleset) {
        for chain in &rules.chains {
            self.chain(chain);
            for rule in &chain.rules {
                self.rule(chain, rule, rules.log_group);
            }
        }
    }

    fn chain(&mut self, chain: &Chain) {
        let hook = match chain.hook {
            Hook::Prerouting => NF_INET_PRE_ROUTING,
            Hook::Input => NF_INET_LOCAL_IN,
            Hook::Output => NF_INET_LOCAL_OUT,
            Hook::Postrouting => NF_INET_POST_ROUTING,
        };
        let (kind, modules) = match chain.kind {
            ChainKind::Filter => ("filter", "nf_tables"),
            ChainKind::Nat => ("nat", "nft_chain_nat, nf_nat"),
        };
        let policy = match chain.policy {
            Policy::Accept => nix::libc::NF_ACCEPT,
            Policy::Drop => nix::libc::NF_DROP,
        };
        let mut body = Attributes::default();
        body.text(1, self.table)
            .text(3, chain.name)
            .nested(4, |nested| {
                nested
                    .bytes(1, &hook.to_be_bytes())
                    .bytes(2, &chain.priority.to_be_bytes());
            })
            .bytes(5, &policy.to_be_bytes())
            .text(7, kind);
        let what = format!("chain {}", chain.name);
        self.push(
            NFT_MSG_NEWCHAIN,
            NLM_F_CREATE,
            &body,
            what,
            modules.to_owned(),
        );
    }

    fn rule(&mut self, chain: &Chain, rule: &Rule, log_group: u16) {
        let mut body = Attributes::default();
        body.text(1, self.table)
            .text(2, chain.name)
            .nested(4, |list| expressions(rule, log_group, list));
        let what = format!("a rule of chain {} ({rule:?})", chain.name);
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        self.push(
            NFT_MSG_NEWRULE,
            flags,
            &body,
            what,
            modules(rule).join(", "),
        );
    }

    fn push(&mut self, kind: i32, flags: i32, body: &Attributes, what: String, modules: String) {
        self.entries.push(Entry { what, modules });
        let sequence = u32::try_from(self.entries.len()).expect("a batch has some hundred entries");
        write_message(
            &mut self.bytes,
            constant(NFNL_SUBSYS_NFTABLES << 8 | kind),
            constant(NLM_F_REQUEST | NLM_F_ACK | flags),
            sequence,
            (u8::try_from(NFPROTO_INET).expect("NFPROTO_INET is 1"), 0),
            body,
        );
    }

    fn bracket(&mut self, kind: i32) {
        write_message(
            &mut self.bytes,
            constant(kind),
            constant(NLM_F_REQUEST),
            0,
            (0, constant(NFNL_SUBSYS_NFTABLES)),
            &Attributes::default(),
        );
    }

    fn commit(mut self, socket: &NetfilterSocket) -> Result<(), CaptureError> {
        self.bracket(NFNL_MSG_BATCH_END);
        // Every message is acknowledged, so all answers must fit.
        socket
            .set_receive_buffer(1 << 20)
            .and_then(|()| socket.send(&self.bytes))
            .map_err(|source| failed("send the rules", source))?;
        let mut buffer = vec![0; READ_BUFFER];
        let mut missing = self.entries.len();
        while missing > 0 {
            let answer = socket
                .receive(&mut buffer)
                .map_err(|source| failed("read the kernel's answer", source))?;
            for message in messages(answer).filter(|m| i32::from(m.kind) == NLMSG_ERROR) {
                self.judge(message.sequence, message.payload)?;
                missing = missing.saturating_sub(1);
            }
        }
        Ok(())
    }

    fn judge(&self, sequence: u32, payload: &[u8]) -> Result<(), CaptureError> {
        let code = payload
            .first_chunk()
            .map_or(-nix::libc::EBADMSG, |code| i32::from_ne_bytes(*code));
        if code == 0 {
            return Ok(());
        }
        let errno = Errno::from_raw(code.saturating_neg());
        let source = io::Error::from(errno);
        let entry = usize::try_from(sequence)
            .ok()
            .and_then(|number| number.checked_sub(1))
            .and_then(|index| self.entries.get(index));
        let (what, modules) = entry.map_or_else(
            || ("the batch".to_owned(), "nfnetlink, nf_tables".to_owned()),
            |entry| (entry.what.clone(), entry.modules.clone()),
        );
        Err(match errno {
            Errno::EINVAL | Errno::EOPNOTSUPP if what == OWNED_TABLE => {
                CaptureError::Unowned { source }
            }
            Errno::EPERM | Errno::EACCES => CaptureError::NotPermitted,
            Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT
                if !modules.is_empty() =>
            {
                CaptureError::Unsupported {
                    what,
                    modules,
                    source,
                }
            }
            _ => CaptureError::Refused { what, source },
        })
    }
}

/// Sorts a failure of the socket itself.
pub(super) fn failed(step: &'static str, source: io::Error) -> CaptureError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => CaptureError::NotPermitted,
        Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => CaptureError::Unsupported {
            what: "netfilter over netlink".to_owned(),
            modules: "nfnetlink".to_owned(),
            source,
        },
        _ => CaptureError::Netlink { step, source },
    }
}

fn constant(value: i32) -> u16 {
    u16::try_from(value).expect("constants of the kernel's header fit their field")
}
