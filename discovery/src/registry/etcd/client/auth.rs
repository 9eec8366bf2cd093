//! The token that authenticates calls.

use std::time::Duration;

use tokio::{sync::Mutex, time::timeout};
use tonic::{Code, Status};

use super::connection::{Connection, Token};
use crate::registry::etcd::proto::{AUTHENTICATE, AuthenticateRequest, AuthenticateResponse};

/// Credentials, and the token that a member gave for them. A token is valid at every member.
pub(super) struct Auth {
    user: Option<(String, String)>,
    current: Mutex<Current>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Current {
    /// The next call authenticates.
    #[default]
    Unknown,
    /// Calls carry no token: there are no credentials, or authentication is off.
    Without,
    Token(Token),
}

impl Auth {
    /// The user's name and password, or a token that was issued elsewhere, or neither.
    pub(super) fn new(
        user: Option<(String, String)>,
        token: Option<&str>,
    ) -> Result<Self, &'static str> {
        let current = match (token, &user) {
            (Some(token), _) => Current::Token(
                token
                    .parse()
                    .map_err(|_| "the token has a character that cannot be sent")?,
            ),
            (None, None) => Current::Without,
            (None, Some(_)) => Current::Unknown,
        };
        Ok(Self {
            user,
            current: Mutex::new(current),
        })
    }

    /// The token for a call. Authenticates over `connection` within `limit` if there is none yet.
    /// Concurrent callers share one authentication.
    pub(super) async fn token(
        &self,
        connection: &Connection,
        limit: Duration,
    ) -> Result<Option<Token>, Status> {
        let mut current = self.current.lock().await;
        if *current == Current::Unknown
            && let Some((name, password)) = &self.user
        {
            *current = authenticate(connection, name, password, limit).await?;
        }
        Ok(match &*current {
            Current::Token(token) => Some(token.clone()),
            Current::Unknown | Current::Without => None,
        })
    }

    /// Drops the token with which a call was refused. True if another one can be had.
    pub(super) async fn forget(&self, refused: Option<&Token>) -> bool {
        if self.user.is_none() {
            return false;
        }
        let mut current = self.current.lock().await;
        let same = match &*current {
            Current::Token(token) => refused == Some(token),
            Current::Without => refused.is_none(),
            Current::Unknown => false,
        };
        if same {
            *current = Current::Unknown;
        }
        true
    }
}

async fn authenticate(
    connection: &Connection,
    name: &str,
    password: &str,
    limit: Duration,
) -> Result<Current, Status> {
    let request = AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    };
    let answer = connection.unary::<_, AuthenticateResponse>(AUTHENTICATE, request, None);
    match timeout(limit, answer).await {
        Ok(Ok(answer)) => {
            let token = answer.token.parse();
            token.map(Current::Token).map_err(|_| {
                Status::internal("the server gave a token with a character that cannot be sent")
            })
        }
        // Authentication is off. etcd's own client continues without a token, too.
        Ok(Err(status)) if status.code() == Code::FailedPrecondition => Ok(Current::Without),
        Ok(Err(status)) => Err(status),
        Err(elapsed) => {
            // The next call connects to another member.
            connection.close();
            Err(Status::from_error(elapsed.into()))
        }
    }
}
