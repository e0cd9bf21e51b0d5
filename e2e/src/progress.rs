//! Progress of a run on stderr: one line that changes on a terminal, a line every 15 s in a log.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::plan::{Outlook, Plan, about};

/// How often the line on a terminal is written anew.
const TERMINAL_TICK: Duration = Duration::from_millis(200);
/// How often a log gets a line.
const LOG_TICK: Duration = Duration::from_secs(15);

/// The steps of one run, with the time that each took.
#[derive(Debug, Default)]
pub struct Progress {
    plan: Mutex<Plan>,
    taken: Mutex<Vec<(String, Duration)>>,
}

/// A step that is under way. Its line ends with [`Step::done`], or as failed when it is dropped.
#[derive(Debug)]
pub struct Step<'a> {
    progress: &'a Progress,
    title: String,
    label: String,
    detail: Arc<Mutex<String>>,
    began: Instant,
    ticker: JoinHandle<()>,
    finished: bool,
}

impl Progress {
    /// Shows the plan. The steps in it have numbers and an estimate from now on.
    pub fn begin(&self, plan: Plan) {
        if !plan.steps.is_empty() {
            eprint!("{}", plan.summary());
        }
        *self.plan.lock() = plan;
    }

    /// Begins a step. One at a time: the steps share a line on the terminal.
    pub fn step(&self, title: &str) -> Step<'_> {
        let detail = Arc::new(Mutex::new(String::new()));
        let began = Instant::now();
        let outlook = self.outlook(title);
        if !std::io::stderr().is_terminal() && outlook.is_some_and(|outlook| outlook.estimate >= LOG_TICK) {
            self.announce(title);
        }
        let label = label(title, outlook);
        let ticker = tokio::spawn(tick(label.clone(), outlook, Arc::clone(&detail), began));
        Step { progress: self, title: title.to_owned(), label, detail, began, ticker, finished: false }
    }

    /// Shows that a step begins which shows its own progress.
    pub fn announce(&self, title: &str) {
        let outlook = self.outlook(title);
        let estimate = outlook.map_or_else(String::new, |outlook| format!(" ({})", about(outlook.estimate)));
        eprintln!("  {}{estimate}", label(title, outlook));
    }

    fn outlook(&self, title: &str) -> Option<Outlook> {
        self.plan.lock().outlook(title, &self.taken.lock())
    }

    /// The steps that are done and their times, in order; empty if nothing had to be done.
    pub fn table(&self) -> String {
        let taken = self.taken.lock();
        if taken.is_empty() {
            return String::new();
        }
        let width = taken.iter().map(|(title, _)| title.chars().count()).max().unwrap_or(0);
        let total: Duration = taken.iter().map(|(_, time)| *time).sum();
        let line = |title: &str, time: Duration| format!("  {title:<width$}  {:>7}\n", human(time));
        let mut table: String = taken.iter().map(|(title, time)| line(title, *time)).collect();
        table.push_str(&line("total", total));
        table
    }
}

impl Step<'_> {
    /// Says how far the step has come.
    pub fn detail(&self, text: impl Into<String>) {
        *self.detail.lock() = text.into();
    }

    /// A function that says how far the step has come, for what must not borrow the step.
    pub fn reporter(&self) -> impl Fn(String) + Send + Sync + 'static {
        let detail = Arc::clone(&self.detail);
        move |text| *detail.lock() = text
    }

    /// Ends the step with its time.
    pub fn done(mut self) {
        self.finished = true;
        let took = self.began.elapsed();
        clear_line();
        eprintln!("  ✓ {} ({})", self.label, human(took));
        self.progress.taken.lock().push((self.title.clone(), took));
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.ticker.abort();
        if !self.finished {
            clear_line();
            eprintln!("  ✗ {} ({})", self.label, human(self.began.elapsed()));
        }
    }
}

/// Writes a line for the person who waits.
pub fn note(text: &str) {
    clear_line();
    eprintln!("    {text}");
}

/// `step 4 of 9: Compiling Kubernetes`, or the title alone if it is not planned.
fn label(title: &str, outlook: Option<Outlook>) -> String {
    match outlook {
        Some(outlook) => format!("step {} of {}: {title}", outlook.number, outlook.count),
        None => title.to_owned(),
    }
}

/// `1 m 00 s, about 12 min left`.
fn times(outlook: Option<Outlook>, elapsed: Duration) -> String {
    match outlook {
        Some(outlook) => format!("{}, {} left", human(elapsed), about(outlook.left(elapsed))),
        None => human(elapsed),
    }
}

async fn tick(label: String, outlook: Option<Outlook>, detail: Arc<Mutex<String>>, began: Instant) {
    let terminal = std::io::stderr().is_terminal();
    let every = if terminal { TERMINAL_TICK } else { LOG_TICK };
    loop {
        tokio::time::sleep(every).await;
        let detail = detail.lock().clone();
        let separator = if detail.is_empty() { "" } else { ": " };
        let line = format!("  … {label}{separator}{detail} ({})", times(outlook, began.elapsed()));
        if terminal {
            let short: String = line.chars().take(columns()).collect();
            eprint!("\r\x1b[K{short}");
            if std::io::stderr().flush().is_err() {
                // The terminal was closed; the work continues.
                return;
            }
        } else {
            eprintln!("{line}");
        }
    }
}

fn columns() -> usize {
    std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(100)
}

fn clear_line() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

/// `0.42 s`, `7.1 s`, `3 m 05 s`.
pub fn human(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 {
        format!("{seconds:.2} s")
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} m {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(human(Duration::from_millis(420)), "0.42 s");
        assert_eq!(human(Duration::from_millis(7_120)), "7.1 s");
        assert_eq!(human(Duration::from_secs(185)), "3 m 05 s");
    }

    #[test]
    fn nothing_done_is_nothing_said() {
        assert_eq!(Progress::default().table(), "");
    }

    #[tokio::test]
    async fn a_planned_step_has_its_number_and_the_time_left() {
        let progress = Progress::default();
        let mut plan = Plan::default();
        plan.always("first", 60);
        plan.always("second", 120);
        *progress.plan.lock() = plan;
        let outlook = progress.outlook("first");
        assert_eq!(label("first", outlook), "step 1 of 2: first");
        assert_eq!(times(outlook, Duration::from_secs(10)), "10.0 s, about 3 min left");
        assert_eq!(label("else", progress.outlook("else")), "else");
        assert_eq!(times(None, Duration::from_secs(10)), "10.0 s");
    }

    #[tokio::test]
    async fn the_table_holds_what_was_done_and_not_what_failed() {
        let progress = Progress::default();
        progress.step("first").done();
        drop(progress.step("second"));
        let table = progress.table();
        assert!(table.contains("first") && table.contains("total"), "{table}");
        assert!(!table.contains("second"), "{table}");
    }
}
