//! What a running command says on standard error: one line per finished step, a bar while it works.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Talks about steps, and counts which of them did something.
#[derive(Default)]
pub(crate) struct Ui {
    worked: Cell<usize>,
    fresh: Cell<usize>,
}

/// A step that is being worked on.
pub(crate) struct Step<'a> {
    ui: &'a Ui,
    name: String,
    bar: ProgressBar,
    start: Instant,
}

impl Ui {
    /// Begins a step of `length` units; 0 where the length is not known.
    pub(crate) fn step(&self, name: &str, length: u64) -> Step<'_> {
        let bar = if length == 0 { ProgressBar::no_length() } else { ProgressBar::new(length) };
        let template = if length == 0 {
            "{prefix:<18} {spinner} {msg} [{elapsed}]"
        } else {
            "{prefix:<18} {wide_bar} {pos}/{len} {msg} [{elapsed}, {eta} left]"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(250));
        Step { ui: self, name: name.to_owned(), bar, start: Instant::now() }
    }

    /// Says that a step had nothing to do.
    pub(crate) fn fresh(&self, name: &str, what: &str) {
        self.fresh.set(self.fresh.get() + 1);
        eprintln!("{name:<18} {what} (up to date)");
    }

    /// Says something that is no step.
    pub(crate) fn note(&self, text: &str) {
        eprintln!("{text}");
    }

    /// Steps that did something, and steps that had nothing to do.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.worked.get(), self.fresh.get())
    }
}

impl Step<'_> {
    pub(crate) fn tick(&self, position: u64) {
        self.bar.set_position(position);
    }

    pub(crate) fn length(&self, length: u64) {
        if self.bar.length() != Some(length) {
            self.bar.set_length(length);
        }
    }

    pub(crate) fn message(&self, text: impl Into<std::borrow::Cow<'static, str>>) {
        self.bar.set_message(text);
    }

    /// Ends a step that turned out to have nothing to do.
    pub(crate) fn abandon(self) {
        self.bar.finish_and_clear();
    }

    /// Ends the step with what came out.
    pub(crate) fn done(self, what: &str) {
        self.bar.finish_and_clear();
        let seconds = self.start.elapsed().as_secs_f64();
        self.ui.worked.set(self.ui.worked.get() + 1);
        eprintln!("{:<18} {what} ({seconds:.1} s)", self.name);
    }
}
