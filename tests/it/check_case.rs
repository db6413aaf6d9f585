//! One thing that is broken, and the row `hookyard check` has to give for it.

use futures_util::stream::{self, StreamExt};
use hookyard::sandbox::Sandbox;
use serde_json::Value;

use crate::check_world::{Ran, World};
use crate::emulator::Emulator;

pub(crate) type Break = fn(&mut World);

/// What is broken; then check, state and a part of the command, in which `P` stands for the
/// project.
pub(crate) struct Case {
    pub(crate) what: &'static str,
    pub(crate) broken: Break,
    pub(crate) check: &'static str,
    pub(crate) state: &'static str,
    pub(crate) command: &'static str,
}

pub(crate) const fn failed(
    what: &'static str,
    broken: Break,
    check: &'static str,
    command: &'static str,
) -> Case {
    Case {
        what,
        broken,
        check,
        state: "failed",
        command,
    }
}

pub(crate) const fn warned(
    what: &'static str,
    broken: Break,
    check: &'static str,
    command: &'static str,
) -> Case {
    Case {
        state: "warning",
        ..failed(what, broken, check, command)
    }
}

pub(crate) const fn skipped(
    what: &'static str,
    broken: Break,
    check: &'static str,
    command: &'static str,
) -> Case {
    Case {
        state: "skipped",
        ..failed(what, broken, check, command)
    }
}

pub(crate) struct Bench {
    emulator: Emulator,
    sandbox: Sandbox,
}

impl Bench {
    pub(crate) async fn start() -> Option<Self> {
        let emulator = Emulator::find().await?;
        let sandbox = Sandbox::builder().start().await.unwrap();
        Some(Self { emulator, sandbox })
    }

    pub(crate) async fn run(&self, json: bool, change: impl FnOnce(&mut World)) -> (Ran, String) {
        let project = format!("hookyard-{:08x}", rand::random::<u32>());
        let mut world = World::good(&project);
        change(&mut world);
        let ran = world.run(&self.emulator, &self.sandbox, json).await;
        let printed = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!printed.contains("canary"), "a secret is shown: {printed}");
        (ran, project)
    }

    /// Runs every case, a few at a time, and reports all that went wrong.
    pub(crate) async fn cases(&self, cases: &'static [Case], beside: &[&str]) {
        let complaints: Vec<String> = stream::iter(cases)
            .map(|case| async move { self.case(case, beside).await.err() })
            .buffer_unordered(4)
            .filter_map(std::future::ready)
            .collect()
            .await;
        assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    }

    pub(crate) async fn case(&self, case: &Case, beside: &[&str]) -> Result<(), String> {
        let (ran, project) = self.run(true, case.broken).await;
        let rows = ran.findings();
        let fail = |why: &str| {
            let rows = serde_json::to_string_pretty(&rows).unwrap();
            Err(format!("{}: {why}\n{rows}\n{}", case.what, ran.stderr))
        };
        let counts = |row: &&Value| !beside.contains(&row["check"].as_str().unwrap());
        let own: Vec<&Value> = rows.iter().filter(counts).collect();
        let is_it = |row: &&&Value| row["check"] == case.check && row["state"] == case.state;
        let found: Vec<&&Value> = own.iter().filter(is_it).collect();
        let [row] = found[..] else {
            return fail("its row is not there once");
        };
        let is_worse = |row: &&&Value| row["state"] == "failed" || row["state"] == "warning";
        if own.iter().filter(is_worse).count() > usize::from(case.state != "skipped") {
            return fail("other rows complain too");
        }
        let command = case
            .command
            .replace("project=P", &format!("project={project}"));
        let command = command.replace("@P.", &format!("@{project}."));
        let command = command.replace("projects/P/", &format!("projects/{project}/"));
        if !row["command"].as_str().unwrap_or("").contains(&command) {
            return fail(&format!("the command is not {command}"));
        }
        let code = i32::from(case.state == "failed");
        if ran.code != Some(code) {
            return fail(&format!("exit code {:?} instead of {code}", ran.code));
        }
        Ok(())
    }
}
