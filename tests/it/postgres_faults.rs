//! Rows P7 and P10: PostgreSQL goes away, refuses, and comes back.
