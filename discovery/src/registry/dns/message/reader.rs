//! A cursor over the bytes of a message.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::registry::dns::name::Name;

/// References within one name: a name has at most this many labels, and more would only cost time.
const MAX_REFERENCES: usize = 127;

const SHORT: &str = "ends in the middle of a record";

/// A position in a message.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    message: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self {
            message,
            at: 0,
            end: message.len(),
        }
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let end = self.at + count;
        if end > self.end {
            return Err(SHORT);
        }
        let bytes = self.message.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.bytes(N)?.try_into().map_err(|_| SHORT)
    }

    pub(super) fn u16(&mut self) -> Result<u16, &'static str> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, &'static str> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn ipv4(&mut self) -> Result<Ipv4Addr, &'static str> {
        self.array::<4>().map(Into::into)
    }

    pub(super) fn ipv6(&mut self) -> Result<Ipv6Addr, &'static str> {
        self.array::<16>().map(Into::into)
    }

    /// The next bytes as a reader of their own, which sees the message before them: names refer back.
    pub(super) fn part(&mut self, length: usize) -> Result<Self, &'static str> {
        let at = self.at;
        self.bytes(length)?;
        Ok(Self {
            message: self.message,
            at,
            end: self.at,
        })
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.end
    }

    /// The next name. The inner error is a name that cannot be read, and whose end is known.
    pub(super) fn name(&mut self) -> Result<Result<Name, &'static str>, &'static str> {
        let mut labels = Vec::new();
        loop {
            let start = self.at;
            let [length] = self.array()?;
            match length {
                0 => return Ok(Name::of_labels(labels)),
                1..=63 => labels.push(self.bytes(length.into())?),
                0xc0.. => {
                    let [low] = self.array()?;
                    let to = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    return Ok(self.rest_of_name(to, start, labels));
                }
                _ => return Err("a label of an unknown kind"),
            }
        }
    }

    /// The labels at an earlier position. Each reference must lead further back, so they end.
    fn rest_of_name(
        &self,
        to: usize,
        mut before: usize,
        mut labels: Vec<&'a [u8]>,
    ) -> Result<Name, &'static str> {
        const BROKEN: &str = "a name refers to something that is not a name";
        let mut to = to;
        let mut length = 0;
        for _ in 0..MAX_REFERENCES {
            if to >= before {
                return Err(BROKEN);
            }
            before = to;
            loop {
                let kind = *self.message.get(to).ok_or(BROKEN)?;
                match kind {
                    0 => return Name::of_labels(labels),
                    1..=63 => {
                        let end = to + 1 + usize::from(kind);
                        labels.push(self.message.get(to + 1..end).ok_or(BROKEN)?);
                        length += end - to;
                        to = end;
                    }
                    0xc0.. => {
                        let low = *self.message.get(to + 1).ok_or(BROKEN)?;
                        to = u16::from_be_bytes([kind & 0x3f, low]).into();
                        break;
                    }
                    _ => return Err(BROKEN),
                }
                if length > usize::from(u8::MAX) {
                    return Err("a name is longer than 255 bytes");
                }
            }
        }
        Err(BROKEN)
    }
}
