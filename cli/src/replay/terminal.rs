//! The terminal that a session plays on.
//!
//! Invariant: however this ends (a key, an error, a panic, SIGTERM, SIGHUP), the terminal is as it was before; and it ends when the terminal is gone.

use std::{
    io,
    os::fd::AsFd,
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::screen::{Next, Screen};

/// How long a key is waited for: while it plays, and while it stands (then until a signal is noticed).
const PLAYING_WAIT: Duration = Duration::from_millis(40);
const STANDING_WAIT: Duration = Duration::from_millis(200);
/// How often it is looked whether the terminal is still there: one that hangs up tells its session's leader alone, which we need not be.
const GONE_CHECK: Duration = Duration::from_millis(500);
/// How long after a signal, or after the terminal is gone, the player has to end by itself: reading keys of a terminal that is gone may never return.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// Exit status of a program that a signal ends, less the signal's number.
const SIGNALLED: u8 = 128;
const SIGHUP: u8 = 1;
const SIGTERM: u8 = 15;

/// A terminal that is ours until this is dropped.
struct Taken(DefaultTerminal);

impl Taken {
    fn take() -> anyhow::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                let _ = ratatui::try_restore();
                Err(error).context("this is no terminal to play on; use -o plain")
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // A terminal that is gone cannot be restored, and need not be.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Plays until the person has seen enough.
pub(super) fn play(mut screen: Screen) -> anyhow::Result<ExitCode> {
    let ended = watch_signals()?;
    let mut taken = Taken::take()?;
    // The first look for keys begins to listen for another size, too: one that came before it would go unseen.
    event::poll(Duration::ZERO)?;
    let started = Instant::now();
    let mut is_changed = true;
    loop {
        let signalled = ended.load(Ordering::Relaxed);
        if signalled != 0 {
            return Ok(ExitCode::from(SIGNALLED.saturating_add(signalled)));
        }
        is_changed |= screen.tick(started.elapsed());
        if is_changed {
            taken.0.draw(|frame| screen.draw(frame))?;
        }
        let wait = match screen.is_playing() {
            true => PLAYING_WAIT,
            false => STANDING_WAIT,
        };
        is_changed = event::poll(wait)?;
        if !is_changed {
            continue;
        }
        // What else there is, such as another size, is drawn anew.
        if let Event::Key(key) = event::read()?
            && screen.key(key) == Next::Quit
        {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// What a signal that ends us puts its number into.
fn watch_signals() -> anyhow::Result<Arc<AtomicU8>> {
    let ended = Arc::new(AtomicU8::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    let number = Arc::clone(&ended);
    thread::spawn(move || {
        let which = runtime.block_on(first(&mut terminate, &mut hangup));
        number.store(which, Ordering::Relaxed);
        thread::sleep(LAST_WAIT);
        let _ = ratatui::try_restore();
        process::exit(SIGNALLED.saturating_add(which).into());
    });
    Ok(ended)
}

async fn first(terminate: &mut Signal, hangup: &mut Signal) -> u8 {
    tokio::select! {
        _ = terminate.recv() => SIGTERM,
        _ = hangup.recv() => SIGHUP,
        () = gone() => SIGHUP,
    }
}

/// Returns when the terminal is gone.
async fn gone() {
    while !is_gone() {
        tokio::time::sleep(GONE_CHECK).await;
    }
}

fn is_gone() -> bool {
    let stdout = io::stdout();
    let mut asked = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let polled = poll(&mut asked, PollTimeout::ZERO);
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    polled.is_ok()
        && asked[0]
            .revents()
            .is_none_or(|events| events.intersects(gone))
}
