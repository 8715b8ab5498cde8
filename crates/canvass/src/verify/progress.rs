//! Says how far a check is: a bar on a terminal, a line of JSON a second elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);
/// The time between two lines.
const LINE: Duration = Duration::from_secs(1);

/// Shows how many of `total` are done, until `finished`; `what` says what they are.
pub(crate) fn show(what: &'static str, total: u64, done: &AtomicU64, finished: impl Fn() -> bool) {
    let bar = if std::io::stderr().is_terminal() { bar(what, total) } else { ProgressBar::hidden() };
    let mut next = Instant::now() + LINE;
    while !finished() {
        std::thread::sleep(LOOK);
        let done = done.load(Ordering::Relaxed);
        bar.set_position(done);
        if bar.is_hidden() && Instant::now() >= next {
            next += LINE;
            eprintln!("{}", json!({ what: done, "of": total }));
        }
    }
    bar.finish_and_clear();
}

fn bar(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(what);
    let template = "{bar:30} {human_pos} of {human_len} {msg}, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
