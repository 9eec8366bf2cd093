//! Real servers and processes for the workspace's tests.

pub mod fake;
