//! The body of a request over HTTP: an object with the fields `a` and `b`.
//!
//! A client of the Go program must get the same answer here, or an error. Go's `encoding/json` compares
//! field names without regard to case, takes null and a missing field as the zero value, and ignores
//! unknown fields; so does this. Of a field that is there twice, Go takes the last one; here this is an
//! error unless both have the same value.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Longest part of a value that an error shows, in characters.
const SHOWN: usize = 40;

/// The two operands of a method.
#[derive(Debug, PartialEq)]
pub(crate) struct Operands<T> {
    pub(crate) a: T,
    pub(crate) b: T,
}

/// The type of an operand.
pub(crate) trait Field: Default + PartialEq + Sized {
    /// Describes the accepted values.
    const EXPECTED: &str;

    /// Reads a JSON value other than null.
    fn read(json: &str) -> Option<Self>;
}

impl Field for i64 {
    const EXPECTED: &str = "a whole number from -9223372036854775808 to 9223372036854775807";

    /// Go's rule too: `1.0` and `1e3` are not whole numbers, `-0` is one.
    fn read(json: &str) -> Option<Self> {
        json.parse().ok()
    }
}

impl Field for String {
    const EXPECTED: &str = "a text";

    fn read(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

impl<'de, T: Field> Deserialize<'de> for Operands<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Field> Visitor<'de> for Fields<T> {
    type Value = Operands<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Operands<T>, A::Error> {
        let (mut a, mut b) = (None, None);
        while let Some(name) = fields.next_key::<String>()? {
            let field = match name.as_str() {
                "a" | "A" => &mut a,
                "b" | "B" => &mut b,
                _ => {
                    fields.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value = value::<T, A::Error>(&name, fields.next_value::<&RawValue>()?.get())?;
            if field.as_ref().is_some_and(|first| *first != value) {
                return Err(A::Error::custom(format!(
                    "the field {name:?} is there twice, with different values"
                )));
            }
            *field = Some(value);
        }
        Ok(Operands {
            a: a.unwrap_or_default(),
            b: b.unwrap_or_default(),
        })
    }
}

fn value<T: Field, E: serde::de::Error>(name: &str, json: &str) -> Result<T, E> {
    if json == "null" {
        return Ok(T::default());
    }
    T::read(json).ok_or_else(|| {
        let shown: String = json.chars().take(SHOWN).collect();
        let rest = if shown.len() < json.len() { "..." } else { "" };
        E::custom(format!(
            "the field {name:?} is {shown}{rest}, expected {}",
            T::EXPECTED
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Field>(json: &str) -> Result<(T, T), String> {
        let read = serde_json::from_str(json).map(|Operands { a, b }| (a, b));
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn objects_are_read_as_in_go() {
        for (json, a, b) in [
            ("{}", 0, 0),
            (r#"{"a":1,"b":2}"#, 1, 2),
            (r#"{"A":1,"B":2}"#, 1, 2),
            (r#"{"\u0061":1}"#, 1, 0),
            (r#"{"a":null,"b":2}"#, 0, 2),
            (r#"{"a":-0}"#, 0, 0),
            (
                r#"{"a": -9223372036854775808 , "b" : 9223372036854775807}"#,
                i64::MIN,
                i64::MAX,
            ),
            (r#"{"c":{"a":5},"á":6,"aa":7," a":8,"":9,"b":2}"#, 0, 2),
            // Twice the same value.
            (r#"{"a":1,"A":1,"b":2,"b":2}"#, 1, 2),
            (r#"{"a":0,"a":null}"#, 0, 0),
        ] {
            assert_eq!(read(json), Ok((a, b)), "{json}");
        }
        let texts = read::<String>(r#"{"A":"\u00e4 ","b":null}"#).unwrap();
        assert_eq!(texts, ("ä ".to_owned(), String::new()));
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        let whole = i64::EXPECTED;
        for value in [
            "\"1\"",
            "1.5",
            "1.0",
            "1e3",
            "-0.0",
            "true",
            "[1]",
            "{}",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            let error = read::<i64>(&format!("{{\"B\":{value}}}")).unwrap_err();
            let reason = format!("the field \"B\" is {value}, expected {whole} at line 1");
            assert!(error.starts_with(&reason), "{error}");
        }
        for value in ["1", "true", "[\"x\"]", "{}", r#""\ud800""#] {
            let error = read::<String>(&format!("{{\"a\":{value}}}")).unwrap_err();
            let reason = format!("the field \"a\" is {value}, expected a text at line 1");
            assert!(error.starts_with(&reason), "{error}");
        }
        let long = read::<i64>(&format!("{{\"a\":\"{}\"}}", "ä".repeat(1000))).unwrap_err();
        assert!(
            long.contains("ä..., expected") && long.len() < 300,
            "{long}"
        );
    }

    #[test]
    fn a_field_with_two_values_is_refused() {
        for json in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"A":2}"#,
            r#"{"A":1,"b":1,"a":null}"#,
        ] {
            let error = read::<i64>(json).unwrap_err();
            assert!(
                error.contains("is there twice, with different values"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for json in [
            "",
            "null",
            "1",
            "[1,2]",
            "{",
            "{\"a\":1,}",
            "{} {}",
            "{\"a\":+1}",
            "{\"a\":01}",
        ] {
            assert!(read::<i64>(json).is_err(), "{json}");
        }
    }
}
