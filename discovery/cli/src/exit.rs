//! The exit codes.
//!
//! | code | subcommand | meaning |
//! |---|---|---|
//! | 0 | all | success; the command that was registered ended with 0 |
//! | 1 | `resolve` | no instance |
//! | 1 | `doctor` | calls work, with warnings |
//! | 2 | `doctor` | calls do not work |
//! | 2 | `watch`, `resolve`, `call` | an error before there was an answer: of the registry, the reflection or the input |
//! | 64 | all | wrong usage (`EX_USAGE`) |
//! | 65 to 80 | `call` | 64 and the gRPC status code, as in grpcurl |
//! | 125, 126, 127 | `register` | an error of its own, a command that cannot be executed, one that does not exist, as in `timeout` and `env` |
//! | any other | `register` | the command's own code, or 128 and the signal that ended it |

/// Success.
pub(crate) const FINE: u8 = 0;
/// `resolve` found no instance.
pub(crate) const EMPTY: u8 = 1;
/// `doctor` has warnings.
pub(crate) const WARNINGS: u8 = 1;
/// `doctor` found that calls do not work.
pub(crate) const BROKEN: u8 = 2;
/// An error before there was an answer.
pub(crate) const FAILED: u8 = 2;
/// `EX_USAGE`. A call's code begins above it.
pub(crate) const USAGE: u8 = 64;
/// `register` itself failed.
pub(crate) const NOT_RUN: u8 = 125;
/// The command cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
pub(crate) const NOT_FOUND: u8 = 127;
/// Shells' code of a process that a signal ended is this and the signal's number.
pub(crate) const SIGNAL: u8 = 128;
/// As if SIGPIPE had ended the process.
pub(crate) const BROKEN_PIPE: u8 = SIGNAL + 13;
