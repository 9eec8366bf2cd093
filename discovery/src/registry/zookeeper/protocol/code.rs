//! The server's error codes (`KeeperException.Code` in ZooKeeper's source).

use std::fmt;

/// An error code of an answer. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Code(i32);

impl Code {
    pub(in super::super) const NO_NODE: Self = Self(-101);
    pub(in super::super) const NO_AUTH: Self = Self(-102);
    pub(in super::super) const BAD_VERSION: Self = Self(-103);
    pub(in super::super) const NODE_EXISTS: Self = Self(-110);
    pub(in super::super) const SESSION_EXPIRED: Self = Self(-112);
    pub(in super::super) const AUTH_FAILED: Self = Self(-115);
    pub(in super::super) const SESSION_MOVED: Self = Self(-118);
    /// The server requires an authentication that the session does not have (3.8).
    pub(in super::super) const AUTH_REQUIRED: Self = Self(-124);

    /// `None` for zero, which is success.
    pub(super) fn new(code: i32) -> Option<Self> {
        (code != 0).then_some(Self(code))
    }

    /// True if the credentials do not allow the call.
    pub(in super::super) fn is_denial(self) -> bool {
        [Self::NO_AUTH, Self::AUTH_FAILED, Self::AUTH_REQUIRED].contains(&self)
    }

    /// True if the same call may succeed later: the server could not carry it out.
    pub(in super::super) fn may_pass(self) -> bool {
        // System errors of the server (-1 to -3), lost connections and time-outs (-4, -7), a
        // session that moved (-118), a time-out of a request (-122) and a throttled one (-127).
        matches!(self.0, -4..=-1 | -7 | -118 | -122 | -127)
    }

    /// ZooKeeper's name of the code.
    pub(in super::super) fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            -1 => "SystemError",
            -2 => "RuntimeInconsistency",
            -3 => "DataInconsistency",
            -4 => "ConnectionLoss",
            -5 => "MarshallingError",
            -6 => "Unimplemented",
            -7 => "OperationTimeout",
            -8 => "BadArguments",
            -100 => "APIError",
            -101 => "NoNode",
            -102 => "NoAuth",
            -103 => "BadVersion",
            -108 => "NoChildrenForEphemerals",
            -110 => "NodeExists",
            -111 => "NotEmpty",
            -112 => "SessionExpired",
            -113 => "InvalidCallback",
            -114 => "InvalidACL",
            -115 => "AuthFailed",
            -118 => "SessionMoved",
            -119 => "NotReadOnly",
            -120 => "EphemeralOnLocalSession",
            -122 => "RequestTimeout",
            -124 => "SessionClosedRequireAuth",
            -125 => "QuotaExceeded",
            -127 => "ThrottledOp",
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}
