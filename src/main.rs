//! The reference service: the handlers of `src/handlers`, run by the command line of `src/cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookyard::cli::main()
}
