//! The three phases of the process, and how tasks hear of them.

use tokio::sync::watch;

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It serves.
    Running,
    /// It serves, but says that it is not ready and leads no more.
    Draining,
    /// It finishes what runs and takes nothing new.
    Stopping,
}

/// Says the phase. Phases only go forward.
#[derive(Debug)]
pub struct Lifecycle(watch::Sender<Phase>);

/// Hears the phase. Clones hear the same.
#[derive(Clone, Debug)]
pub struct Signals(watch::Receiver<Phase>);

impl Lifecycle {
    /// A process that runs.
    #[must_use]
    pub fn start() -> (Self, Signals) {
        let (sender, receiver) = watch::channel(Phase::Running);
        (Self(sender), Signals(receiver))
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let is_forward = phase > *current;
            if is_forward {
                *current = phase;
            }
            is_forward
        });
    }
}

impl Signals {
    /// Resolves once the process is in this phase or a later one, also if whoever says the phase is gone.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.0.clone();
        let _ = receiver.wait_for(|current| *current >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_go_forward_only_and_all_hear_them() {
        let (lifecycle, signals) = Lifecycle::start();
        let other = signals.clone();
        lifecycle.enter(Phase::Stopping);
        lifecycle.enter(Phase::Draining);
        signals.reached(Phase::Draining).await;
        other.reached(Phase::Stopping).await;
        drop(lifecycle);
        signals.reached(Phase::Stopping).await;
    }
}
