//! The command under Chaperone, to its end.
//!
//! Invariant: a signal that would end Chaperone ends the command first, so that its last requests are answered and recorded and the stream is closed. No signal reaches another process: the
//! command's number is its own until it is reaped, and it is reaped once no signal is passed on any more.

use std::{
    io,
    process::{Child, ExitStatus},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for the command. SIGTERM and SIGHUP are passed on to it; SIGINT comes from a terminal, which tells the command by itself.
///
/// # Errors
/// When the system has no handler or no thread to give, or does not know the child.
pub(super) async fn wait(mut child: Child) -> io::Result<ExitStatus> {
    let process = i32::try_from(child.id()).map_err(io::Error::other)?;
    let process = Pid::from_raw(process);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut ended = tokio::task::spawn_blocking(move || end_of(process));
    loop {
        let told = tokio::select! {
            ended = &mut ended => {
                ended??;
                return child.wait();
            }
            _ = terminate.recv() => Signal::SIGTERM,
            _ = hang_up.recv() => Signal::SIGHUP,
            _ = interrupt.recv() => continue,
        };
        // A command that has just ended hears nothing any more.
        let _ = kill(process, told);
    }
}

/// Blocks until a child has ended, and leaves it to be reaped.
fn end_of(process: Pid) -> io::Result<()> {
    loop {
        match waitid(
            Id::Pid(process),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use super::*;

    #[tokio::test]
    async fn a_command_that_has_ended_keeps_its_number_while_signals_may_be_passed_on() {
        let child = Command::new("sh")
            .args(["-c", "sleep 0.1; exit 7"])
            .spawn()
            .unwrap();
        let process = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let mut waiting = Box::pin(wait(child));
        assert!(futures::poll!(&mut waiting).is_pending());
        // Longer than the command takes; this thread polls nothing meanwhile.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(kill(process, None), Ok(()), "nobody else can have it");
        let status = waiting.await.unwrap();
        assert_eq!(status.code(), Some(7));
        assert_eq!(kill(process, None), Err(Errno::ESRCH), "reaped");
    }

    #[tokio::test]
    async fn a_signal_that_ended_the_command_is_its_status() {
        use std::os::unix::process::ExitStatusExt;
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let mut waiting = Box::pin(wait(child));
        assert!(futures::poll!(&mut waiting).is_pending());
        kill(process, Signal::SIGTERM).unwrap();
        assert_eq!(waiting.await.unwrap().signal(), Some(15));
    }
}
