//! The facts that the steps share.

use discovery::connection::Http2;

use super::{args::DoctorArgs, clock::Skew};

/// The facts that the steps share.
pub(super) struct StepContext<'a> {
    pub(super) args: &'a DoctorArgs,
    /// Connects to instances, with the settings of the command line.
    pub(super) http2: Http2,
    /// The difference between the registry's clock and this machine's, if it is known.
    pub(super) skew: Option<Skew>,
}
