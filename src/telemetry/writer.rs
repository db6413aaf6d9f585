//! Writes log lines on a thread of its own, so that a blocked stdout blocks nothing else.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How many bytes of lines may wait for a slow reader. What comes on top is dropped and counted.
const LIMIT: usize = 4 << 20;
/// How long the thread rests after writing: lines of a busy service then go out in one write, and
/// the threads that log need not wake it. A process that is killed loses the lines of this time.
const REST: Duration = Duration::from_millis(2);
/// How long the end of the process waits for a reader that does not read.
const PATIENCE: Duration = Duration::from_secs(1);
/// A buffer that has grown past this is given back.
const KEEP: usize = 256 << 10;

/// Takes lines from any thread.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    dropped: u64,
    /// The thread sleeps until it is woken.
    asleep: bool,
    /// The thread has taken lines that are not written yet.
    writing: bool,
    closed: bool,
}

/// Makes a line that says how many were dropped.
pub(super) type TellDropped = Box<dyn Fn(u64, &mut Vec<u8>) + Send>;

impl Lines {
    /// Starts the thread that writes to `out`.
    pub(super) fn start(
        out: Box<dyn Write + Send>,
        tell_dropped: TellDropped,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            written: Condvar::new(),
        });
        let lines = Self(Arc::clone(&shared));
        thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || shared.run(out, &tell_dropped))?;
        Ok(lines)
    }

    /// Hands over one line, its line feed included. Never waits for the reader.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.pending.len() + line.len() > LIMIT {
            state.dropped += 1;
            return;
        }
        state.pending.extend_from_slice(line);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.0.wake.notify_one();
        }
    }

    /// Waits until everything handed over is written, but not for ever.
    pub(super) fn flush(&self) {
        self.0.wake.notify_one();
        let behind = |state: &mut State| state.writing || !state.pending.is_empty();
        // Past the patience the reader is gone or stuck; there is nobody to tell.
        drop(
            self.0
                .written
                .wait_timeout_while(self.0.lock(), PATIENCE, behind),
        );
    }

    /// Writes what is there and ends the thread.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.flush();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut out: Box<dyn Write + Send>, tell_dropped: &TellDropped) {
        let mut taken = Vec::new();
        loop {
            let mut state = self.lock();
            while state.pending.is_empty() && state.dropped == 0 && !state.closed {
                state.asleep = true;
                state = self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            state.asleep = false;
            state.writing = true;
            std::mem::swap(&mut state.pending, &mut taken);
            let dropped = std::mem::take(&mut state.dropped);
            let closed = state.closed;
            drop(state);
            if dropped > 0 {
                tell_dropped(dropped, &mut taken);
            }
            // A reader that is gone must not end the service.
            out.write_all(&taken).and_then(|()| out.flush()).ok();
            taken.clear();
            taken.shrink_to(KEEP);
            let mut state = self.lock();
            state.writing = false;
            let over = closed && state.pending.is_empty();
            drop(state);
            self.written.notify_all();
            if over {
                return;
            }
            if !closed {
                thread::sleep(REST);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that takes nothing until it is let.
    struct Gate {
        open: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.open.recv().ok();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn tell() -> TellDropped {
        Box::new(|count, out| out.extend_from_slice(format!("dropped {count}\n").as_bytes()))
    }

    #[test]
    fn p11_a_blocked_reader_blocks_nobody_and_the_lost_lines_are_counted() {
        let (open, gate) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let out = Gate {
            open: gate,
            written: Arc::clone(&written),
        };
        let lines = Lines::start(Box::new(out), tell()).unwrap();
        let long = [b'x'; 1 << 20];

        for _ in 0..12 {
            lines.push(&long); // returns although nothing is read
        }
        drop(open);
        lines.close();

        let written = written.lock().unwrap();
        let last = String::from_utf8_lossy(&written[written.len() - 12..]).into_owned();
        assert!(
            last.trim_start_matches('x').starts_with("dropped "),
            "{last}"
        );
        assert!(written.len() <= 9 * long.len());
    }

    #[test]
    fn lines_are_written_whole_and_in_order() {
        let (open, gate) = mpsc::channel();
        drop(open);
        let written = Arc::new(Mutex::new(Vec::new()));
        let out = Gate {
            open: gate,
            written: Arc::clone(&written),
        };
        let lines = Lines::start(Box::new(out), tell()).unwrap();

        let expected: String = (0..5000).map(|i| format!("line {i}\n")).collect();
        for line in expected.split_inclusive('\n') {
            lines.push(line.as_bytes());
        }
        lines.close();

        assert_eq!(
            String::from_utf8(written.lock().unwrap().clone()).unwrap(),
            expected
        );
    }
}
