//! Wakes the audit thread, and only when it sleeps: a wake-up is a system call, and under load the thread looks by itself every few milliseconds.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering, fence},
    },
    thread::{self, Thread},
    time::Duration,
};

/// Longest sleep of an idle thread: a safety net, not a tick that anything relies on.
const IDLE_WAIT: Duration = Duration::from_secs(10);

/// How others wake the audit thread.
#[derive(Debug, Default)]
pub(in crate::audit) struct Signal {
    thread: OnceLock<Thread>,
    idle: AtomicBool,
}

impl Signal {
    /// This is the thread to wake.
    pub(in crate::audit) fn attach(&self, thread: Thread) {
        // Set once, when the thread is spawned; a second value would be the same thread.
        let _ = self.thread.set(thread);
    }

    /// Wakes the thread, whatever it does.
    pub(in crate::audit) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Wakes the thread if it sleeps for lack of work. What was put into the queue before is seen by it.
    pub(in crate::audit) fn wake_if_idle(&self) {
        fence(Ordering::SeqCst);
        if self.idle.load(Ordering::Relaxed) && self.idle.swap(false, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// The thread's side: sleeps until woken, for so long at most, unless `look` finds work after others can see that the thread is going to sleep.
    pub(in crate::audit) fn sleep_unless(&self, longest: Duration, look: impl FnOnce() -> bool) {
        self.idle.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !look() {
            thread::park_timeout(longest.min(IDLE_WAIT));
        }
        self.idle.store(false, Ordering::Relaxed);
    }
}
