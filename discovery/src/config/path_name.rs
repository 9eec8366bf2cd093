//! Names of requests of plain HTTP: a path and those below it, of one HTTP method or of all.

use http::{Method, uri::PathAndQuery};

use super::{
    error::{ConfigError, ConfigWarning},
    node::{Node, Object},
};

/// The requests to a path and to those below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PathName {
    /// Without a slash at its end; empty for all paths.
    path: String,
    /// `None` for all methods.
    method: Option<String>,
}

impl PathName {
    /// Reads the fields of a name that has this path.
    pub(super) fn read(
        path: &Node<'_>,
        mut object: Object<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let text = path.string()?;
        let is_path = text.starts_with('/') && !text.contains(['?', '#']);
        if !is_path || text.parse::<PathAndQuery>().is_err() {
            return Err(path.invalid("expected a path such as \"/orders\""));
        }
        if let Some(service) = object.take("service") {
            return Err(service.invalid("a name has a path, for plain HTTP, or a service"));
        }
        let method = object.optional("method", method)?;
        object.finish(warnings);
        Ok(Self {
            path: text.trim_end_matches('/').to_owned(),
            method,
        })
    }

    pub(crate) fn path(&self) -> &str {
        if self.path.is_empty() {
            "/"
        } else {
            &self.path
        }
    }

    pub(crate) fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// True if it names this request.
    pub(crate) fn matches(&self, method: &Method, path: &str) -> bool {
        self.method().is_none_or(|known| known == method.as_str()) && self.has_path(path)
    }

    fn has_path(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&*self.path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// True if all requests of `other` are among those of this name.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let method = self.method.is_none() || self.method == other.method;
        method && self.has_path(&other.path)
    }

    /// The name of the requests that both names have, if there are any.
    pub(crate) fn meet(&self, other: &Self) -> Option<Self> {
        let (long, short) = if self.path.len() < other.path.len() {
            (other, self)
        } else {
            (self, other)
        };
        let is_one_method =
            long.method.is_none() || short.method.is_none() || long.method == short.method;
        (is_one_method && short.has_path(&long.path)).then(|| Self {
            path: long.path.clone(),
            method: long.method.clone().or_else(|| short.method.clone()),
        })
    }

    /// Greater for the more exact one of two names of the same request: the longer path, then the one with
    /// a method.
    pub(crate) fn exactness(&self) -> (usize, bool) {
        (self.path.len(), self.method.is_some())
    }
}

/// An HTTP method. They are case-sensitive (RFC 9110, section 9.1), and no usual one has a small letter.
fn method(node: &Node<'_>) -> Result<String, ConfigError> {
    let text = node.string()?;
    let is_small = |byte: u8| byte.is_ascii_lowercase();
    if text.bytes().any(is_small) || Method::from_bytes(text.as_bytes()).is_err() {
        return Err(node.invalid("expected an HTTP method such as \"GET\""));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(method: Option<Method>, path: &str) -> PathName {
        PathName {
            path: path.to_owned(),
            method: method.map(|method| method.to_string()),
        }
    }

    #[test]
    fn a_name_is_for_its_path_and_those_below_it() {
        let orders = name(Some(Method::GET), "/orders");
        for (method, path, expected) in [
            (Method::GET, "/orders", true),
            (Method::GET, "/orders/", true),
            (Method::GET, "/orders/17/lines", true),
            (Method::GET, "/orders2", false),
            (Method::GET, "/", false),
            (Method::POST, "/orders", false),
        ] {
            assert_eq!(orders.matches(&method, path), expected, "{method} {path}");
        }
        let all = name(None, "");
        assert!(all.matches(&Method::PUT, "/") && all.matches(&Method::PUT, "/a/b"));
        assert!(all.covers(&orders) && !orders.covers(&all));
    }

    #[test]
    fn two_names_meet_in_the_longer_path_and_the_method() {
        let get = name(Some(Method::GET), "");
        let orders = name(None, "/orders");
        let met = name(Some(Method::GET), "/orders");
        assert_eq!(get.meet(&orders).unwrap(), met);
        assert_eq!(orders.meet(&get).unwrap(), met);
        assert_eq!(met.meet(&get).unwrap(), met);
        assert!(met.meet(&name(Some(Method::PUT), "/orders")).is_none());
        assert!(orders.meet(&name(None, "/orders2")).is_none());
        assert!(met.exactness() > orders.exactness() && orders.exactness() > get.exactness());
    }
}
