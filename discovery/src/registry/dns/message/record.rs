//! One resource record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::reader::Reader;
use crate::registry::dns::name::Name;

pub(super) const CLASS_IN: u16 = 1;
const TYPE_NS: u16 = 2;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;

/// The kinds of record that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Kind {
    A,
    Aaaa,
    Srv,
}

impl Kind {
    pub(in super::super) const fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
            Self::Srv => 33,
        }
    }

    pub(in super::super) const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Record {
    pub(in super::super) name: Name,
    /// Seconds.
    pub(in super::super) ttl: u32,
    pub(in super::super) data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Srv(Srv),
    Cname(Name),
    Ns,
    Soa {
        /// The time for which an empty answer is valid, in seconds (RFC 2308).
        minimum: u32,
    },
    /// Data of this type that is not what the type has, for this reason.
    Malformed(u16, &'static str),
    Other,
}

/// An instance's host and port (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Srv {
    pub(in super::super) priority: u16,
    pub(in super::super) target: Name,
    pub(in super::super) port: u16,
    pub(in super::super) weight: u16,
}

impl Record {
    /// Reads a record. The error is a broken structure, after which nothing can be read.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, &'static str> {
        let name = reader.name()?;
        let (kind, class) = (reader.u16()?, reader.u16()?);
        let ttl = reader.u32()?;
        let length = reader.u16()?;
        let data = reader.part(length.into())?;
        let (name, data) = match name {
            Ok(name) if class == CLASS_IN => (name, Data::read(kind, data)),
            Ok(name) => (name, Data::Other),
            Err(reason) => (Name::default(), Data::Malformed(kind, reason)),
        };
        Ok(Self {
            name,
            // RFC 2181, section 8: a value above 2^31 - 1 counts as zero.
            ttl: if ttl > i32::MAX.cast_unsigned() {
                0
            } else {
                ttl
            },
            data,
        })
    }
}

impl Data {
    fn read(kind: u16, mut data: Reader<'_>) -> Self {
        let read = Self::of_kind(kind, &mut data);
        match read {
            Ok(Self::Other) => Self::Other,
            Ok(_) if !data.is_at_end() => Self::Malformed(kind, "the data is too long"),
            Ok(read) => read,
            Err(reason) => Self::Malformed(kind, reason),
        }
    }

    fn of_kind(kind: u16, data: &mut Reader<'_>) -> Result<Self, &'static str> {
        const A: u16 = Kind::A.code();
        const AAAA: u16 = Kind::Aaaa.code();
        const SRV: u16 = Kind::Srv.code();
        Ok(match kind {
            A => Self::A(data.ipv4()?),
            AAAA => Self::Aaaa(data.ipv6()?),
            SRV => {
                let (priority, weight, port) = (data.u16()?, data.u16()?, data.u16()?);
                let target = data.name()??;
                Self::Srv(Srv {
                    priority,
                    target,
                    port,
                    weight,
                })
            }
            TYPE_CNAME => Self::Cname(data.name()??),
            TYPE_NS => {
                let _server = data.name()??;
                Self::Ns
            }
            TYPE_SOA => {
                let (_server, _mailbox) = (data.name()??, data.name()??);
                let [_serial, _refresh, _retry, _expire, minimum] = [
                    data.u32()?,
                    data.u32()?,
                    data.u32()?,
                    data.u32()?,
                    data.u32()?,
                ];
                Self::Soa { minimum }
            }
            _ => Self::Other,
        })
    }

    pub(in super::super) fn is_of(&self, kind: Kind) -> bool {
        match self {
            Self::A(_) => kind == Kind::A,
            Self::Aaaa(_) => kind == Kind::Aaaa,
            Self::Srv(_) => kind == Kind::Srv,
            _ => false,
        }
    }

    /// The address of an A or AAAA record.
    pub(in super::super) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::A(address) => Some((*address).into()),
            Self::Aaaa(address) => Some((*address).into()),
            _ => None,
        }
    }
}
