//! Dynamic updates (RFC 2136).

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail};
use bytes::BufMut as _;

const UPDATE: u16 = 5 << 11;
const SOA: u16 = 6;
const IN: u16 = 1;
/// As a type and as a class: all record sets of a name.
const ANY: u16 = 255;

/// The update that replaces all records at `owner`.
pub(super) fn message(zone: &str, owner: &str, ttl: u32, records: &[String]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let updates = u16::try_from(records.len() + 1)?;
    for number in [fastrand::u16(..), UPDATE, 1, 0, updates, 0] {
        bytes.put_u16(number);
    }
    bytes.extend(name(&format!("{zone}."), zone)?);
    bytes.put_u16(SOA);
    bytes.put_u16(IN);
    let at = u16::try_from(bytes.len())?;
    record(&mut bytes, &name(owner, zone)?, [ANY, ANY], 0, &[])?;
    // A reference to the owner's name: 1 000 times the name itself would not fit.
    let owner = (0xc000 | at).to_be_bytes();
    for text in records {
        let (kind, data) = data(text, zone).with_context(|| format!("the record {text:?}"))?;
        record(&mut bytes, &owner, [kind, IN], ttl, &data)?;
    }
    Ok(bytes)
}

fn record(
    bytes: &mut Vec<u8>,
    owner: &[u8],
    kind_and_class: [u16; 2],
    ttl: u32,
    data: &[u8],
) -> Result<()> {
    bytes.put_slice(owner);
    for number in kind_and_class {
        bytes.put_u16(number);
    }
    bytes.put_u32(ttl);
    bytes.put_u16(u16::try_from(data.len())?);
    bytes.put_slice(data);
    Ok(())
}

/// The type and the data of a record in a zone file's form.
fn data(text: &str, zone: &str) -> Result<(u16, Vec<u8>)> {
    let (kind, rest) = text.split_once(' ').context("no data")?;
    Ok(match kind {
        "A" => (1, rest.parse::<Ipv4Addr>()?.octets().into()),
        "AAAA" => (28, rest.parse::<Ipv6Addr>()?.octets().into()),
        "CNAME" => (5, name(rest, zone)?),
        "TXT" => {
            let length = u8::try_from(rest.len())?;
            (16, [&[length], rest.as_bytes()].concat())
        }
        "SRV" => {
            let mut words = rest.split(' ');
            let mut data = Vec::new();
            for _ in ["priority", "weight", "port"] {
                data.put_u16(words.next().context("too short")?.parse()?);
            }
            data.extend(name(words.next().context("no target")?, zone)?);
            (33, data)
        }
        other => bail!("the type {other} is not known here"),
    })
}

/// A name on the wire. A byte may be written as `\DDD`.
fn name(text: &str, zone: &str) -> Result<Vec<u8>> {
    let absolute = match text.strip_suffix('.') {
        Some(absolute) => absolute.to_owned(),
        None => format!("{text}.{zone}"),
    };
    let mut bytes = Vec::new();
    for label in absolute.split('.').filter(|label| !label.is_empty()) {
        let mut parts = label.split('\\');
        let mut plain: Vec<u8> = parts.next().unwrap_or_default().into();
        for part in parts {
            let (number, rest) = part.split_at_checked(3).context("a cut escape")?;
            plain.push(number.parse()?);
            plain.extend(rest.as_bytes());
        }
        bytes.put_u8(u8::try_from(plain.len())?);
        bytes.extend(plain);
    }
    bytes.put_u8(0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_replaces_the_records_of_a_name() {
        let records = ["SRV 0 1 8975 ns".to_owned(), "TXT a b".to_owned()];
        let message = message("x", "_t", 5, &records).unwrap();
        let expected = [
            &b"\x28\0\0\x01\0\0\0\x03\0\0\x01x\0\0\x06\0\x01"[..],
            b"\x02_t\x01x\0\0\xff\0\xff\0\0\0\0\0\0",
            b"\xc0\x13\0\x21\0\x01\0\0\0\x05\0\x0c\0\0\0\x01\x23\x0f\x02ns\x01x\0",
            b"\xc0\x13\0\x10\0\x01\0\0\0\x05\0\x04\x03a b",
        ];
        assert_eq!(message[2..], expected.concat());
        assert_eq!(name("a\\032b.", "x").unwrap(), b"\x03a b\0");
        assert_eq!(name(".", "x").unwrap(), b"\0");
        assert!(super::message("x", "a", 0, &["SRV 0 1 70000 ns".to_owned()]).is_err());
    }
}
