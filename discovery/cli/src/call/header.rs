//! A header of the request, as `-H` gives it.

use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tonic::metadata::{AsciiMetadataValue, BinaryMetadataValue, MetadataKey, MetadataMap};

/// A header. The value of a name that ends with `-bin` is binary.
#[derive(Clone, Debug)]
pub(super) enum Header {
    Text(MetadataKey<tonic::metadata::Ascii>, AsciiMetadataValue),
    Binary(MetadataKey<tonic::metadata::Binary>, BinaryMetadataValue),
}

impl Header {
    pub(super) fn add_to(&self, metadata: &mut MetadataMap) {
        match self {
            Self::Text(name, value) => _ = metadata.append(name.clone(), value.clone()),
            Self::Binary(name, value) => _ = metadata.append_bin(name.clone(), value.clone()),
        }
    }
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once(':')
            .ok_or("expected NAME: VALUE, for example 'x-tenant: blue'")?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if name.starts_with("grpc-") {
            return Err(format!(
                "{name}: gRPC keeps names that begin with grpc- for itself"
            ));
        }
        let invalid = || format!("{name:?} is not a header name");
        if name.ends_with("-bin") {
            let bytes = STANDARD.decode(value);
            let bytes =
                bytes.map_err(|error| format!("{name}: the value is not base64: {error}"))?;
            let key = name.parse().map_err(|_| invalid())?;
            return Ok(Self::Binary(key, BinaryMetadataValue::from_bytes(&bytes)));
        }
        let key = name.parse().map_err(|_| invalid())?;
        let is_text = |c: char| c == ' ' || c.is_ascii_graphic();
        let text = value.chars().all(is_text).then(|| value.parse().ok());
        let value = text.flatten();
        let value = value.ok_or_else(|| format!("{name}: the value is not printable ASCII"))?;
        Ok(Self::Text(key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_binary_headers_are_read() {
        let mut metadata = MetadataMap::new();
        for text in ["X-Tenant: blue:green", "x-id-bin: AQI=", "empty:"] {
            text.parse::<Header>().unwrap().add_to(&mut metadata);
        }
        assert_eq!(metadata.get("x-tenant").unwrap(), "blue:green");
        assert_eq!(metadata.get("empty").unwrap(), "");
        let id = metadata.get_bin("x-id-bin").unwrap().to_bytes().unwrap();
        assert_eq!(&*id, [1, 2]);
    }

    #[test]
    fn a_malformed_header_is_refused_with_the_reason() {
        for (text, reason) in [
            ("x-tenant", "expected NAME: VALUE"),
            ("x y: 1", "is not a header name"),
            ("x: \u{e9}", "not printable ASCII"),
            ("x-bin: ?", "not base64"),
            ("grpc-timeout: 1S", "begin with grpc-"),
        ] {
            let error = text.parse::<Header>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
