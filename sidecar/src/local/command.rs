//! The command under Chaperone, to its end.
//!
//! Invariant: a signal that would end Chaperone ends the command first, so that its last requests are answered and recorded and the stream is closed.

use std::{
    io,
    process::{Child, ExitStatus},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for the command. SIGTERM and SIGHUP are passed on to it; SIGINT comes from a terminal, which tells the command by itself.
///
/// # Errors
/// When the system has no handler or no thread to give, or does not know the child.
pub(super) async fn wait(mut child: Child) -> io::Result<ExitStatus> {
    let process = i32::try_from(child.id()).map(Pid::from_raw);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut ended = tokio::task::spawn_blocking(move || child.wait());
    loop {
        let told = tokio::select! {
            ended = &mut ended => return ended?,
            _ = terminate.recv() => Signal::SIGTERM,
            _ = hang_up.recv() => Signal::SIGHUP,
            _ = interrupt.recv() => continue,
        };
        if let Ok(process) = process {
            // A command that has just ended hears nothing any more.
            let _ = kill(process, told);
        }
    }
}
