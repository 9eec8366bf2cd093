//! Domain names: their text, and their labels in a message.

use std::fmt::{self, Write as _};

/// The greatest lengths of a label and of a name on the wire (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 255;

/// A domain name in lower case, without the dot at its end. The root is empty.
///
/// Bytes that a host name cannot have are written as `\DDD` (RFC 1035, section 5.1). A name with such
/// bytes can be read and shown, and not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(String);

impl Name {
    /// Reads a name that can be asked for. A dot at its end is optional: every name is absolute.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err("the name is empty".to_owned());
        }
        for label in name.split('.') {
            check_label(label).map_err(|reason| format!("the name {text:?} {reason}"))?;
        }
        // One length byte for each label, and one for the root.
        if name.len() + 2 > MAX_NAME {
            return Err(format!("the name {text:?} is longer than {MAX_NAME} bytes"));
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    /// The name of these labels from a message.
    pub(super) fn of_labels<'a>(
        labels: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, &'static str> {
        let (mut text, mut length) = (String::new(), 1);
        for label in labels {
            length += 1 + label.len();
            if length > MAX_NAME {
                return Err("a name is longer than 255 bytes");
            }
            if !text.is_empty() {
                text.push('.');
            }
            for byte in label {
                if is_plain(*byte) {
                    text.push(byte.to_ascii_lowercase().into());
                } else {
                    // Writing to a string cannot fail.
                    let _written = write!(text, "\\{byte:03}");
                }
            }
        }
        Ok(Self(text))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// True if the name can be asked for.
    pub(super) fn is_plain(&self) -> bool {
        !self.is_root() && self.0.bytes().all(|b| b == b'.' || is_plain(b))
    }

    /// The labels, from the left.
    pub(super) fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.').filter(|label| !label.is_empty())
    }
}

/// Checks one label of a name that is asked for.
pub(super) fn check_label(label: &str) -> Result<(), String> {
    if label.is_empty() {
        return Err("has an empty part".to_owned());
    }
    if label.len() > MAX_LABEL {
        return Err(format!("has a part longer than {MAX_LABEL} bytes"));
    }
    match label.chars().find(|c| !c.is_ascii() || !is_plain(*c as u8)) {
        Some(other) => Err(format!(
            "has {other:?}; expected letters, digits, `-` and `_`"
        )),
        None => Ok(()),
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_without_regard_to_case_and_its_last_dot() {
        let name = Name::parse("_Trim._tcp.Example.COM.").unwrap();
        assert_eq!(name, Name::parse("_trim._TCP.example.com").unwrap());
        assert_eq!(name.to_string(), "_trim._tcp.example.com");
        assert_eq!(name.labels().count(), 4);
        assert!(name.is_plain());
    }

    #[test]
    fn a_name_that_cannot_be_asked_for_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "is empty"),
            (".", "is empty"),
            ("a..b", "an empty part"),
            (".a", "an empty part"),
            ("a b.c", "' '"),
            ("a/b", "'/'"),
            ("\u{e9}.fr", "'\u{e9}'"),
            (&"x".repeat(64), "longer than 63 bytes"),
            (&"x.".repeat(127), ""),
            (&"x.".repeat(128), "longer than 255 bytes"),
        ] {
            match Name::parse(text) {
                Ok(_) => assert_eq!(reason, "", "{text:?} was taken"),
                Err(error) => assert!(error.contains(reason), "{text:?}: {error}"),
            }
        }
    }

    #[test]
    fn unusual_bytes_of_a_message_are_shown_and_not_asked_for() {
        let labels: [&[u8]; 2] = [b"a.b\\\xff", b"COM"];
        let name = Name::of_labels(labels).unwrap();
        assert_eq!(name.to_string(), "a\\046b\\092\\255.com");
        assert!(!name.is_plain());
        assert!(Name::of_labels([]).unwrap().is_root());
        assert_eq!(Name::default().to_string(), ".");
        assert!(Name::of_labels([[0; 63].as_slice(); 4]).is_err());
    }
}
