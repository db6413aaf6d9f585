//! The reference service: the handlers of `src/handlers`, run by the command line of `src/cli`.

use std::process::ExitCode;

/// Chosen by measurement, see docs/PERFORMANCE.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hookyard::cli::main(hookyard::handlers::register)
}
