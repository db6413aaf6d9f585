//! Logs panics without what they say: a panic message may quote a row.

use std::panic::{Location, PanicHookInfo};

/// Replaces the process's panic hook, which would print the message to stderr.
pub(super) fn install() {
    std::panic::set_hook(Box::new(log));
}

fn log(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    tracing::error!(
        panic.file = info.location().map(file),
        panic.line = info.location().map(Location::line),
        thread.name = thread.name().unwrap_or("unnamed"),
        "thread panicked"
    );
}

/// Returns the file without folders of the machine it was built on.
fn file<'a>(location: &Location<'a>) -> &'a str {
    let file = location.file();
    let name = |file: &'a str| file.rsplit(['/', '\\']).next().unwrap_or(file);
    if file.starts_with(['/', '\\']) {
        name(file)
    } else {
        file
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::{LogConfig, LogFormat};
    use crate::telemetry::Logs;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_words() {
        let config = LogConfig {
            level: "info".to_owned(),
            format: LogFormat::Json,
            colour: false,
            service: "hookyard".to_owned(),
            revision: "r1".to_owned(),
        };
        let kept = Kept::default();
        let (dispatch, guard) = Logs::new(&config, None).to(kept.clone()).build().unwrap();
        let before = std::panic::take_hook();
        install();

        let caught = tracing::dispatcher::with_default(&dispatch, || {
            std::panic::catch_unwind(|| panic!("canary of a row"))
        });

        std::panic::set_hook(before);
        assert!(caught.is_err());
        drop(guard);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert!(
            text.contains(r#""panic.file":"src/telemetry/panics.rs""#),
            "{text}"
        );
        assert!(text.contains("thread panicked"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}
