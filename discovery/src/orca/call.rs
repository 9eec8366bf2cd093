//! The load of one call, and the report at its end.

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;

use super::{
    report::{HEADER, LoadReport},
    server::ServerLoad,
};
use crate::{
    ejection::Classification,
    grpc::{self, Grpc},
    protocol::Protocol as _,
};

/// The load of one call: an extension of its request, for the handler.
///
/// Its figures replace those of the server in the call's report.
#[derive(Clone, Debug, Default)]
pub struct CallLoad(Arc<Mutex<Option<Box<LoadReport>>>>);

impl CallLoad {
    /// Sets figures of the call.
    pub fn update(&self, update: impl FnOnce(&mut LoadReport)) {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        update(report.get_or_insert_default());
    }

    fn take(&self) -> Option<Box<LoadReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The sources of a call's report, read when the call ends.
#[derive(Debug)]
pub(super) struct CallEnd {
    load: ServerLoad,
    call: CallLoad,
}

impl CallEnd {
    pub(super) fn new(load: ServerLoad, call: CallLoad) -> Self {
        Self { load, call }
    }

    /// Counts the call's status, and adds the report to the headers that have it.
    pub(super) fn finish(self, trailers: &mut HeaderMap) {
        let code = grpc::status(trailers);
        if code.is_some_and(|code| Grpc::classify(code) != Classification::Success) {
            self.load.count_error();
        }
        let header = match self.call.take() {
            None => self.load.header(),
            Some(own) => {
                let mut report = self.load.report();
                report.replace(&own);
                report.to_header()
            }
        };
        if let Some(header) = header {
            trailers.insert(HEADER, header);
        }
    }
}
