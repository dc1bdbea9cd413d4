//! A team of threads that waits awake for a moment, for work too small to wake somebody up.
//!
//! A decoding step is some hundred parallel regions of ten microseconds each; waking a sleeping thread
//! costs as much as one of them. Helpers therefore spin for a while after each job before they sleep.
//! There is one team per process. A caller that finds it taken (another thread computes, or the
//! caller is itself part of a job) does its work alone, so threads are never oversubscribed and nothing
//! waits for a lock.

use std::cell::{Cell, UnsafeCell};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::Thread;

use crate::gemm::Shared;

/// Looks at the next job's number before a helper sleeps: some tens of microseconds.
const SPINS: u32 = 4_000;
/// In [`Team::gate`]: no job may be entered.
const CLOSED: u32 = 1 << 31;

type Job<'a> = &'a (dyn Fn(usize) + Sync);

struct Team {
    helpers: OnceLock<Vec<Helper>>,
    /// Whether somebody leads.
    taken: AtomicBool,
    /// Counts jobs; helpers wait for it to change.
    number: AtomicU32,
    /// [`CLOSED`] or not, and how many helpers are inside the job.
    gate: AtomicU32,
    job: UnsafeCell<Option<Job<'static>>>,
    tasks: AtomicUsize,
    next: AtomicUsize,
    panicked: AtomicBool,
}

struct Helper {
    thread: Thread,
    asleep: &'static AtomicBool,
}

// SAFETY: `job` is written by the one leader while the gate is closed and empty, and read by helpers
// that have entered the gate.
unsafe impl Sync for Team {}

static TEAM: Team = Team {
    helpers: OnceLock::new(),
    taken: AtomicBool::new(false),
    number: AtomicU32::new(0),
    gate: AtomicU32::new(CLOSED),
    job: UnsafeCell::new(None),
    tasks: AtomicUsize::new(0),
    next: AtomicUsize::new(0),
    panicked: AtomicBool::new(false),
};

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with every kernel on the calling thread only: for callers whose own tasks already fill the
/// threads. The results are the same bits.
pub fn on_one_thread<R>(f: impl FnOnce() -> R) -> R {
    /// Goes back to what was before, also when `f` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _restore = Restore(ALONE.replace(true));
    f()
}

/// Whether the kernels of this thread compute on it alone.
pub(crate) fn alone() -> bool {
    ALONE.get()
}

/// Calls `task` with each of `0..tasks`, on all threads of the current rayon pool's number, in any
/// order. Returns when all are done.
///
/// # Panics
/// When a task does.
pub(crate) fn for_each(tasks: usize, task: impl Fn(usize) + Sync) {
    let threads = rayon::current_num_threads();
    if tasks <= 1 || threads == 1 || alone() || TEAM.taken.swap(true, Ordering::Acquire) {
        return (0..tasks).for_each(task);
    }
    let helpers = TEAM.helpers.get_or_init(|| (1..threads).filter_map(|_| start()).collect());
    let job: Job<'_> = &task;
    TEAM.tasks.store(tasks, Ordering::Relaxed);
    TEAM.next.store(0, Ordering::Relaxed);
    // SAFETY: the gate is closed and nobody is inside. The job outlives its use: `End` below closes the
    // gate again and waits until the last helper has left, also when a task panics.
    unsafe { *TEAM.job.get() = Some(std::mem::transmute::<Job<'_>, Job<'static>>(job)) };
    let end = End;
    TEAM.gate.store(0, Ordering::Release);
    TEAM.number.fetch_add(1, Ordering::SeqCst);
    for helper in helpers.iter().filter(|h| h.asleep.load(Ordering::SeqCst)) {
        helper.thread.unpark();
    }
    work(job);
    drop(end);
}

/// Calls `task` with each item, in any order, on all threads of the current rayon pool's number that are free.
/// Returns when all are done.
///
/// # Panics
/// When a task does.
pub fn consume<T: Send>(items: impl ExactSizeIterator<Item = T>, task: impl Fn(T) + Sync) {
    if items.len() <= 1 || alone() || rayon::current_num_threads() == 1 {
        return items.for_each(task);
    }
    let mut items: Vec<Option<T>> = items.map(Some).collect();
    let (slots, len) = (Shared(items.as_mut_ptr()), items.len());
    for_each(len, |i| {
        // SAFETY: each index is given out once, so that no two tasks touch a slot.
        let item = unsafe { (*slots.get().add(i)).take() };
        item.into_iter().for_each(&task);
    });
}

/// Closes the gate, waits for the helpers inside, and gives the team back.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        TEAM.gate.fetch_or(CLOSED, Ordering::AcqRel);
        let mut spins = 0;
        while TEAM.gate.load(Ordering::Acquire) != CLOSED {
            pause(&mut spins);
        }
        let panicked = TEAM.panicked.swap(false, Ordering::Relaxed);
        TEAM.taken.store(false, Ordering::Release);
        assert!(!panicked || std::thread::panicking(), "a parallel task panicked");
    }
}

/// Waits a little; other threads may run when it takes long.
fn pause(spins: &mut u32) {
    *spins += 1;
    if spins.is_multiple_of(SPINS) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// Does tasks until none is left.
fn work(job: Job<'_>) {
    let tasks = TEAM.tasks.load(Ordering::Relaxed);
    loop {
        let task = TEAM.next.fetch_add(1, Ordering::Relaxed);
        if task >= tasks {
            return;
        }
        job(task);
    }
}

fn start() -> Option<Helper> {
    let asleep: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let builder = std::thread::Builder::new().name("assay-kernels".into());
    let handle = builder.spawn(move || help(asleep)).ok()?;
    Some(Helper { thread: handle.thread().clone(), asleep })
}

fn help(asleep: &AtomicBool) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while TEAM.number.load(Ordering::SeqCst) == seen {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                asleep.store(true, Ordering::SeqCst);
                // A job that came in between has seen either the flag or this thread awake.
                if TEAM.number.load(Ordering::SeqCst) == seen {
                    std::thread::park();
                }
                asleep.store(false, Ordering::SeqCst);
            }
        }
        seen = TEAM.number.load(Ordering::SeqCst);
        let enter = |gate| (gate & CLOSED == 0).then_some(gate + 1);
        if TEAM.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).is_ok() {
            let leave = Leave;
            // SAFETY: inside the gate the job is set and stays.
            if let Some(job) = unsafe { *TEAM.job.get() } {
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(job)));
                if done.is_err() {
                    TEAM.panicked.store(true, Ordering::Relaxed);
                }
            }
            drop(leave);
        }
    }
}

/// A helper inside the gate.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        TEAM.gate.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_also_from_many_threads_and_inside_a_job() {
        let counts: Vec<AtomicUsize> = (0..997).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        for_each(counts.len(), |i| {
                            counts[i].fetch_add(1, Ordering::Relaxed);
                            if i == 7 {
                                for_each(3, |_| ());
                            }
                        });
                    }
                });
            }
        });
        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 800));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_works_on() {
        for bad in [0, 63] {
            let result = std::panic::catch_unwind(|| for_each(64, |i| assert_ne!(i, bad)));
            assert!(result.is_err());
        }
        let sum = AtomicUsize::new(0);
        for_each(64, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 2016);
    }
}
