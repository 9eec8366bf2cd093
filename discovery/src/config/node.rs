//! JSON values that know their place in the text, so that an error names line, column and field.

use std::{borrow::Cow, fmt, time::Duration};

use http::HeaderName;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::error::{ConfigError, ConfigWarning, Place};
use crate::code::Code;

/// Largest service config. A TXT record or an xDS resource is far smaller.
const MAX_SIZE: usize = 1 << 20;
/// Longest part of a value that an error quotes.
const QUOTED: usize = 60;
/// The longest duration of protobuf's JSON mapping: ten thousand years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// A value.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    document: &'a str,
    text: &'a str,
    path: String,
}

impl<'a> Node<'a> {
    /// The value that the whole document is.
    pub(super) fn root(document: &'a str) -> Result<Self, ConfigError> {
        let place = |line, column| Place {
            line,
            column,
            field: String::new(),
        };
        if document.len() > MAX_SIZE {
            let value = format!("{} bytes long", document.len());
            let expected = format!("at most {MAX_SIZE} bytes are read");
            return Err(ConfigError::new(place(1, 1), value, expected));
        }
        let raw: &RawValue = serde_json::from_str(document).map_err(|error| {
            let text = error.to_string();
            let reason = text.split(" at line ").next().unwrap_or(&text).to_owned();
            let place = place(error.line().max(1), error.column().max(1));
            ConfigError::new(place, "not valid JSON".to_owned(), reason)
        })?;
        Ok(Self {
            document,
            text: raw.get(),
            path: String::new(),
        })
    }

    fn child(&self, raw: &'a RawValue, path: String) -> Self {
        Self {
            document: self.document,
            text: raw.get(),
            path,
        }
    }

    pub(super) fn place(&self) -> Place {
        // The text is a part of the document, so the difference of their addresses is the offset.
        let offset = (self.text.as_ptr() as usize).wrapping_sub(self.document.as_ptr() as usize);
        Place::at(self.document, offset, &self.path)
    }

    /// The error of a value that is not what is expected here.
    pub(super) fn invalid(&self, expected: impl Into<Cow<'static, str>>) -> ConfigError {
        let mut value: String = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        if value.chars().count() > QUOTED {
            value = value.chars().take(QUOTED).chain("...".chars()).collect();
        }
        ConfigError::new(self.place(), value, expected)
    }

    pub(super) fn warning(&self, reason: impl Into<Cow<'static, str>>) -> ConfigWarning {
        ConfigWarning::new(self.place(), reason)
    }

    fn read<T: Deserialize<'a>>(
        &self,
        expected: impl Into<Cow<'static, str>>,
    ) -> Result<T, ConfigError> {
        serde_json::from_str(self.text).map_err(|_| self.invalid(expected))
    }

    pub(super) fn object(&self) -> Result<Object<'a>, ConfigError> {
        let fields: Fields<'a> = self.read("expected an object")?;
        let mut entries: Vec<(String, Self)> = Vec::with_capacity(fields.0.len());
        for (name, raw) in fields.0 {
            let path = if self.path.is_empty() {
                name.clone()
            } else {
                format!("{}.{name}", self.path)
            };
            let child = self.child(raw, path);
            if entries.iter().any(|(known, _)| *known == name) {
                return Err(child.invalid("the field is given twice in this object"));
            }
            entries.push((name, child));
        }
        Ok(Object { entries })
    }

    pub(super) fn array(&self) -> Result<Vec<Self>, ConfigError> {
        let items: Vec<&'a RawValue> = self.read("expected a list")?;
        let items = items.into_iter().enumerate();
        Ok(items
            .map(|(index, raw)| self.child(raw, format!("{}[{index}]", self.path)))
            .collect())
    }

    pub(super) fn is_null(&self) -> bool {
        self.text == "null"
    }

    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        self.read("expected true or false")
    }

    pub(super) fn string(&self) -> Result<String, ConfigError> {
        self.read("expected a text in quotes")
    }

    /// A text that is not blank.
    pub(super) fn name(&self) -> Result<String, ConfigError> {
        let text = self.string()?;
        if text.trim().is_empty() {
            return Err(self.invalid("must not be empty"));
        }
        Ok(text)
    }

    /// The name of a header with a text as its value, as gRPC's metadata have it.
    pub(super) fn header(&self) -> Result<HeaderName, ConfigError> {
        const EXPECTED: &str =
            "expected the name of a header, in lower case and without -bin at the end";
        let name = HeaderName::from_lowercase(self.string()?.as_bytes())
            .map_err(|_| self.invalid(EXPECTED))?;
        if name.as_str().ends_with("-bin") {
            return Err(self.invalid(EXPECTED));
        }
        Ok(name)
    }

    /// A whole number of at least `min`. Protobuf's JSON mapping also has it in quotes.
    pub(super) fn integer(&self, min: u64, max: u64) -> Result<u64, ConfigError> {
        let number = match self.read::<u64>("") {
            Ok(number) => Some(number),
            Err(_) => self
                .read::<String>("")
                .ok()
                .and_then(|text| text.parse().ok()),
        };
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| {
                self.invalid(if max == u64::MAX {
                    format!("expected a whole number of at least {min}")
                } else {
                    format!("expected a whole number from {min} to {max}")
                })
            })
    }

    /// A whole number that fits 32 bits.
    pub(super) fn number(&self, min: u32) -> Result<u32, ConfigError> {
        let number = self.integer(min.into(), u32::MAX.into())?;
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// A size in bytes.
    pub(super) fn size(&self) -> Result<usize, ConfigError> {
        let size = self.integer(0, u64::MAX)?;
        // A size beyond the address space is as good as none.
        Ok(usize::try_from(size).unwrap_or(usize::MAX))
    }

    /// A number in this range.
    pub(super) fn float(
        &self,
        is_allowed: impl Fn(f64) -> bool,
        expected: &'static str,
    ) -> Result<f64, ConfigError> {
        let number: f64 = self.read(expected)?;
        if number.is_finite() && is_allowed(number) {
            Ok(number)
        } else {
            Err(self.invalid(expected))
        }
    }

    /// A duration in protobuf's JSON mapping: seconds with up to nine decimal places and an `s`.
    pub(super) fn duration(&self) -> Result<Duration, ConfigError> {
        const EXPECTED: &str = "expected seconds in quotes, for example \"0.25s\" or \"2s\"";
        let text: String = self.read(EXPECTED)?;
        duration(&text).ok_or_else(|| self.invalid(EXPECTED))
    }

    /// A duration above zero.
    pub(super) fn positive_duration(&self) -> Result<Duration, ConfigError> {
        let duration = self.duration()?;
        if duration.is_zero() {
            return Err(self.invalid("must be greater than zero"));
        }
        Ok(duration)
    }

    /// A status code, by its name in any case, or by its number.
    pub(super) fn code(&self) -> Result<Code, ConfigError> {
        let by_name = || {
            self.read::<String>("")
                .ok()
                .and_then(|name| name.parse().ok())
        };
        let by_number = |number: usize| Code::ALL.get(number).copied();
        self.read::<usize>("")
            .ok()
            .and_then(by_number)
            .or_else(by_name)
            .ok_or_else(|| {
                self.invalid("expected a status code: a name such as \"UNAVAILABLE\", or 0 to 16")
            })
    }

    pub(super) fn codes(&self) -> Result<Vec<Code>, ConfigError> {
        self.array()?.iter().map(Self::code).collect()
    }

    pub(super) fn names(&self) -> Result<Vec<String>, ConfigError> {
        self.array()?.iter().map(Self::name).collect()
    }
}

fn duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds: u64 = seconds.parse().ok().filter(|it| *it <= MAX_SECONDS)?;
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(seconds, nanos))
}

/// The fields of an object that are not read yet.
#[derive(Debug)]
pub(super) struct Object<'a> {
    entries: Vec<(String, Node<'a>)>,
}

impl<'a> Object<'a> {
    /// The value of a field; `None` if it is absent or null.
    pub(super) fn take(&mut self, name: &str) -> Option<Node<'a>> {
        let index = self.entries.iter().position(|(known, _)| known == name)?;
        let (_, node) = self.entries.remove(index);
        (!node.is_null()).then_some(node)
    }

    /// The value of a field, read by `read`.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Node<'a>) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        self.take(name).map(|node| read(&node)).transpose()
    }

    /// All fields with their names, null values included.
    pub(super) fn fields(self) -> Vec<(String, Node<'a>)> {
        self.entries
    }

    /// Warns of each field that was not taken, as gRPC ignores unknown fields.
    pub(super) fn finish(self, warnings: &mut Vec<ConfigWarning>) {
        let unknown = |(_, node): (String, Node<'_>)| node.warning("is not a known field: ignored");
        warnings.extend(self.entries.into_iter().map(unknown));
    }
}

/// An object's fields in their order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Collect).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_protobuf() {
        for (text, expected) in [
            ("0s", Some(Duration::ZERO)),
            ("1s", Some(Duration::from_secs(1))),
            ("0.25s", Some(Duration::from_millis(250))),
            ("1.000000001s", Some(Duration::new(1, 1))),
            ("315576000000s", Some(Duration::from_secs(MAX_SECONDS))),
            ("315576000001s", None),
            ("1.0000000001s", None),
            ("-1s", None),
            ("+1s", None),
            ("1.s", None),
            (".5s", None),
            ("1", None),
            ("1ms", None),
            ("s", None),
            ("", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn a_value_knows_its_line_column_and_field() {
        let document = "{\n  \"a\": [1, {\"é\": \"x\",  \"b\": true}]\n}";
        let mut root = Node::root(document).unwrap().object().unwrap();
        let list = root.take("a").unwrap().array().unwrap();
        let mut inner = list[1].object().unwrap();
        let place = inner.take("b").unwrap().place();
        assert_eq!((place.line, place.column), (2, 29));
        assert_eq!(place.field, "a[1].b");
        assert!(inner.take("c").is_none());
        let mut warnings = Vec::new();
        inner.finish(&mut warnings);
        assert_eq!(
            warnings[0].to_string(),
            "line 2, column 18: a[1].é is not a known field: ignored"
        );
    }

    #[test]
    fn text_that_is_not_json_is_an_error_at_its_place() {
        for (document, place) in [
            ("", "line 1, column 1: "),
            ("{\n\"a\": }", "line 2, column 6: "),
            ("{} x", "line 1, column 4: "),
            ("{\"a\": 1", "line 1, column 7: "),
        ] {
            let error = Node::root(document).unwrap_err().to_string();
            assert!(error.starts_with(place), "{error}");
            assert!(error.contains("is not valid JSON: "), "{error}");
        }
        let long = format!("\"{}\"", "x".repeat(MAX_SIZE));
        let error = Node::root(&long).unwrap_err().to_string();
        assert!(error.contains("at most 1048576 bytes"), "{error}");
        // Deep nesting must not exhaust the stack.
        let deep = "[".repeat(100_000);
        assert!(Node::root(&deep).is_err());
    }
}
