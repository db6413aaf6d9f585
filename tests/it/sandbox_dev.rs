//! `hookyard dev` and `hookyard send` as a newcomer runs them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

struct Shell {
    temp: TempDir,
}

/// A running `hookyard dev`, ended when dropped.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Shell {
    fn new() -> Self {
        let temp = TempDir::new().unwrap();
        Self { temp }
    }

    fn hookyard(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookyard"));
        command
            .args(args)
            .env_clear()
            .env("TMPDIR", self.temp.path());
        // Whatever the shell points to, dev keeps to its sandbox.
        command
            .env("CHARGEBEE_URL", "https://acme.chargebee.com")
            .env("CHARGEBEE_API_KEY", "live_x");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.hookyard(args).output().unwrap()
    }

    fn send(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.hookyard(&["send", "-"]);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may have ended without reading anything.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// Starts `hookyard dev` and waits until it says how to go on.
    fn dev(&self) -> (Dev, Vec<String>) {
        let mut command = self.hookyard(&["dev"]);
        let mut dev = Dev(command.stdout(Stdio::piped()).spawn().unwrap());
        let stdout = BufReader::new(dev.0.stdout.take().unwrap());
        let mut lines = Vec::new();
        for line in stdout.lines().map_while(Result::ok) {
            lines.push(line);
            if lines.last().is_some_and(|line| line.starts_with("Ctrl-C")) {
                return (dev, lines);
            }
        }
        panic!("dev ended: {lines:?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_sample_ends_as_it_has_to() {
    let output = Shell::new().run(&["dev", "--once"]);

    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    let steps = [
        "push received",
        "token verified",
        "decoded",
        "claimed",
        "upstream",
        "committed",
    ];
    for step in steps.into_iter().chain(["handler", "answered"]) {
        assert!(shown.contains(step), "no `{step}` in {shown}");
    }
    assert!(
        !shown.contains('\x1b'),
        "colours although this is no terminal"
    );
}

#[test]
fn chaos_loses_nothing_and_does_nothing_twice() {
    let output = Shell::new().run(&["dev", "--chaos", "--events", "120", "--seed", "11"]);

    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    assert!(shown.contains("chaos: seed 11, 120 events"), "{shown}");
}

#[test]
fn send_finds_the_running_dev_and_shows_what_happened() {
    let shell = Shell::new();
    let (_dev, lines) = shell.dev();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("answered") && line.contains("200")),
        "{lines:?}"
    );
    let row = r#"{"id":"c-77","subscription_id":"sub_77","status":"active","amount_cents":1}"#;

    let sent = shell.send(&["--op", "update"], row);
    let forged = shell.send(&["--op", "update", "--token", "forged"], row);
    let no_event = shell.send(&[], row);

    let shown = text(&sent.stdout);
    assert!(sent.status.success(), "{shown}{}", text(&sent.stderr));
    assert!(shown.contains("activate_contract: done"), "{shown}");
    assert!(!forged.status.success());
    assert!(text(&forged.stdout).contains("401"));
    assert!(text(&no_event.stderr).contains("--op"));
}

#[test]
fn send_without_a_service_says_what_to_do() {
    let shell = Shell::new();

    let nobody = shell.send(&[], r#"{"id":"1","scheduled_time":"2026-03-02T02:00:00Z"}"#);
    let missing = shell.run(&["send", "/nowhere/at-all.json"]);

    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("hookyard dev"));
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("cannot read /nowhere/at-all.json"));
}
