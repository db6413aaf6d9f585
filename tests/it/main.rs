//! One binary for all integration tests.

mod logs_lines;
