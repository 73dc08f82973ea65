//! What a panic may take with it: one connection, or the whole process, and nothing in between.
//!
//! Owns the process's panic hook and the wall around the story of a connection. Refuses to go on elsewhere: a sidecar whose audit thread, resolver or control stream is gone would
//! pass traffic without evidence, or by old policies. Invariant: a panic inside [`contain`] ends that future alone; any other ends the process, and with it the pod's network.
//! What a panic says is not told: it can hold bytes of the traffic.

use std::{
    cell::Cell,
    future::poll_fn,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    pin::Pin,
};

thread_local! {
    /// Whether this thread is inside [`contain`].
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// A future panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sidecar failed on this connection, which is a bug of the sidecar")]
pub struct Panicked;

/// From now on a panic outside [`contain`] ends the process.
pub fn install() {
    std::panic::set_hook(Box::new(hook));
}

/// Runs a future whose panic is its own end only. All that it owned is dropped. It comes by reference: the state of a connection has some tens of KiB, and each move of a future
/// into another keeps room for it once more.
///
/// # Errors
/// [`Panicked`].
pub async fn contain<F: Future>(mut story: Pin<&mut F>) -> Result<F::Output, Panicked> {
    poll_fn(|cx| {
        let wall = Wall::build();
        let polled = catch_unwind(AssertUnwindSafe(|| story.as_mut().poll(cx)));
        drop(wall);
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(_) => Err(Panicked).into(),
        }
    })
    .await
}

/// Stands while a contained future is polled.
struct Wall {
    before: bool,
}

impl Wall {
    fn build() -> Self {
        Self {
            before: CONTAINED.replace(true),
        }
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        CONTAINED.set(self.before);
    }
}

fn hook(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    let contained = CONTAINED.try_with(Cell::get).unwrap_or(false);
    tracing::error!(place, thread, contained, "the sidecar panicked");
    if !contained {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, pin::pin, process::Command, rc::Rc};

    use super::*;

    #[tokio::test]
    async fn a_panic_ends_its_future_alone_and_drops_what_it_owned() {
        let owned = Rc::new(());
        let kept = owned.clone();
        let story = pin!(async move {
            tokio::task::yield_now().await;
            assert!(Rc::strong_count(&kept) > 2, "never so");
        });
        let sound = pin!(async { 7 });
        let (panicked, other) = tokio::join!(contain(story), contain(sound));
        assert_eq!((panicked, other), (Err(Panicked), Ok(7)));
        assert_eq!(Rc::strong_count(&owned), 1);
        assert!(!CONTAINED.get());
    }

    #[test]
    fn a_panic_outside_a_connection_ends_the_process() {
        const CHILD: &str = "CHAPERONE_TEST_PANICS";
        if std::env::var_os(CHILD).is_some() {
            install();
            let _ = std::thread::spawn(|| panic!("as a thread of the sidecar would")).join();
            return;
        }
        let test = "isolate::tests::a_panic_outside_a_connection_ends_the_process";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert_eq!(child.status.signal(), Some(6), "{child:?}");
    }
}
