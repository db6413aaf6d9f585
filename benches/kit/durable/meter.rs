//! What work costs: time, and processor time of a contestant and of PostgreSQL.
//!
//! On a machine that others use as well the processor time is the better figure: waiting for a
//! core is not in it.

use std::fs;

use super::database::Database;

/// What a piece of work took, in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) elapsed: f64,
    /// Of the contestant and PostgreSQL together.
    pub(crate) cpu: f64,
}

/// Measures one piece of work.
pub(crate) struct Meter {
    process: u32,
    postmaster: u32,
    before: f64,
}

impl Meter {
    pub(crate) fn start(database: &Database, process: u32) -> Self {
        let backend = database.number("SELECT CAST(pg_backend_pid() AS BIGINT)");
        let postmaster = parent_of(backend as u32).unwrap();
        let before = cpu(process, postmaster);
        Self {
            process,
            postmaster,
            before,
        }
    }

    pub(crate) fn stop(self, elapsed: f64) -> Spent {
        let cpu = cpu(self.process, self.postmaster) - self.before;
        Spent { elapsed, cpu }
    }
}

/// Processor seconds so far of a process and of all the postmaster's children.
fn cpu(process: u32, postmaster: u32) -> f64 {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    let concerned = processes.filter(|&pid| pid == process || parent_of(pid) == Some(postmaster));
    concerned.map(of_process).sum()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, which stands in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Processor seconds of all threads; none when the process is gone.
fn of_process(pid: u32) -> f64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0.0;
    };
    let nanos = tasks.filter_map(|task| {
        let times = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        times.split(' ').next()?.parse::<u64>().ok()
    });
    nanos.sum::<u64>() as f64 / 1e9
}
