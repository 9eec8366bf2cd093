//! Setters.

use std::time::Duration;

use super::Config;

impl Config {
    /// Sets [`resolvers`](Self::resolvers).
    #[must_use]
    pub fn with_resolvers(
        mut self,
        resolvers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.resolvers = resolvers.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`min_refresh`](Self::min_refresh).
    #[must_use]
    pub fn with_min_refresh(mut self, min_refresh: Duration) -> Self {
        self.min_refresh = min_refresh;
        self
    }

    /// Sets [`max_refresh`](Self::max_refresh).
    #[must_use]
    pub fn with_max_refresh(mut self, max_refresh: Duration) -> Self {
        self.max_refresh = max_refresh;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
