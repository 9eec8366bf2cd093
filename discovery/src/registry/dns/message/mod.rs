//! DNS messages (RFC 1035, section 4): queries are written, answers are read.
//!
//! It is a codec of our own because one record with malformed data must not hide the others, which
//! the usual libraries read as one. It knows what discovery needs: A, AAAA, CNAME, SOA and SRV.

mod reader;
mod record;

use bytes::BufMut as _;

pub(super) use self::record::{Data, Kind, Record, Srv};
use self::{reader::Reader, record::CLASS_IN};
use super::name::Name;

/// The payload that a query over UDP allows: fits the smallest MTU of IPv6 (DNS flag day 2020).
pub(super) const UDP_PAYLOAD: u16 = 1232;

const TYPE_OPT: u16 = 41;
const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0xf << 11;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const HEADER: usize = 12;

/// A name and the kind of record that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: Kind,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: u16,
    /// True if records were left out.
    pub(super) truncated: bool,
    pub(super) code: u16,
    /// `None` in some answers with an error.
    question: Option<(Name, u16)>,
    pub(super) answers: Vec<Record>,
    pub(super) authority: Vec<Record>,
    pub(super) additional: Vec<Record>,
}

/// Writes the query of a question. `udp` adds EDNS (RFC 6891), without which an answer over UDP has at most
/// 512 bytes.
pub(super) fn query(id: u16, question: &Question, udp: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.put_u16(id);
    bytes.put_u16(RECURSION_DESIRED);
    for count in [1, 0, 0, u16::from(udp)] {
        bytes.put_u16(count);
    }
    for label in question.name.labels() {
        // A label has at most 63 bytes: checked where the name was read.
        bytes.put_u8(u8::try_from(label.len()).unwrap_or_default());
        bytes.put_slice(label.as_bytes());
    }
    bytes.put_u8(0);
    bytes.put_u16(question.kind.code());
    bytes.put_u16(CLASS_IN);
    if udp {
        // The root's name, the type, the payload in place of a class, no flags, no options.
        bytes.put_u8(0);
        bytes.put_u16(TYPE_OPT);
        bytes.put_u16(UDP_PAYLOAD);
        bytes.put_u32(0);
        bytes.put_u16(0);
    }
    bytes
}

impl Message {
    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// When its structure is broken. Malformed data of a record is [`Data::Malformed`].
    pub(super) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader::new(bytes);
        if bytes.len() < HEADER {
            return Err("shorter than a header");
        }
        let (id, flags) = (reader.u16()?, reader.u16()?);
        if flags & RESPONSE == 0 || flags & OPCODE != 0 {
            return Err("not the answer to a query");
        }
        let [questions, answers, authority, additional] =
            [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        let question = match questions {
            0 => None,
            1 => {
                let name = reader.name()?.map_err(|_| "the question is malformed")?;
                let kind = reader.u16()?;
                let _class = reader.u16()?;
                Some((name, kind))
            }
            _ => return Err("several questions"),
        };
        let mut section = |count: u16| {
            let records = (0..count).map(|_| Record::read(&mut reader));
            records.collect::<Result<Vec<_>, _>>()
        };
        let truncated = flags & TRUNCATED != 0;
        // The sections of a truncated answer may end anywhere, and are not used.
        let [answers, authority, additional] = if truncated {
            Default::default()
        } else {
            [section(answers)?, section(authority)?, section(additional)?]
        };
        Ok(Self {
            id,
            truncated,
            code: flags & 0xf,
            question,
            answers,
            authority,
            additional,
        })
    }

    /// True if it answers this question. Servers may leave the question out of an error.
    pub(super) fn is_answer_to(&self, question: &Question) -> bool {
        match &self.question {
            Some((name, kind)) => *name == question.name && *kind == question.kind.code(),
            None => self.code != 0,
        }
    }
}

/// The name of a response code (RFC 6895, section 2.3).
pub(super) fn code_name(code: u16) -> String {
    match code {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        9 => "NOTAUTH".to_owned(),
        other => format!("RCODE{other}"),
    }
}

#[cfg(test)]
mod tests;
