//! The records at a name, through aliases.

use std::fmt;

use super::{
    client::{Conversation, Failure},
    message::{Data, Message, Question, Record},
    name::Name,
};

/// Aliases that are followed from one name, in all answers together.
const MAX_ALIASES: usize = 8;

const NO_ERROR: u16 = 0;
const NAME_ERROR: u16 = 3;

/// A good answer, which may be empty.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The data of the kind that was asked for.
    pub(super) data: Vec<Data>,
    /// The reasons for which records of that kind cannot be used.
    pub(super) malformed: Vec<&'static str>,
    /// The time in seconds for which the answer is valid. None if an empty answer does not say.
    pub(super) ttl: Option<u32>,
    /// Other records that the server sent along.
    pub(super) additional: Vec<Record>,
}

/// A server's answer to one question that is not a good one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Code(u16),
    Malformed(&'static str),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Code(code) => Self::Code(code),
            Refusal::Malformed(reason) => Self::Malformed(reason.to_owned()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => f.write_str(&super::message::code_name(*code)),
            Self::Malformed(reason) => f.write_str(reason),
        }
    }
}

/// The answers to these questions, in their order. An alias without its records is asked for again.
pub(super) async fn look_up(
    conversation: &mut Conversation,
    questions: Vec<Question>,
) -> Result<Vec<Result<Found, Refusal>>, Failure> {
    let mut done: Vec<Option<Result<Found, Refusal>>> = questions.iter().map(|_| None).collect();
    let mut open: Vec<_> = questions.into_iter().map(Chain::new).enumerate().collect();
    while !open.is_empty() {
        let next: Vec<_> = open
            .iter()
            .map(|(_, chain)| chain.question.clone())
            .collect();
        let answers = conversation.ask(&next).await?;
        let mut aliases = Vec::new();
        for ((at, mut chain), answer) in open.into_iter().zip(answers) {
            match chain.follow(answer) {
                Some(result) => {
                    if let Some(slot) = done.get_mut(at) {
                        *slot = Some(result);
                    }
                }
                None => aliases.push((at, chain)),
            }
        }
        open = aliases;
    }
    Ok(done.into_iter().flatten().collect())
}

/// The way from a name to its records.
struct Chain {
    /// With the last alias that is known.
    question: Question,
    aliases: usize,
    /// The least TTL of the aliases.
    ttl: Option<u32>,
}

impl Chain {
    fn new(question: Question) -> Self {
        Self {
            question,
            aliases: 0,
            ttl: None,
        }
    }

    /// Reads an answer. None: the name is an alias whose records the answer lacks.
    fn follow(&mut self, answer: Message) -> Option<Result<Found, Refusal>> {
        if answer.code != NO_ERROR && answer.code != NAME_ERROR {
            return Some(Err(Refusal::Code(answer.code)));
        }
        let before = self.aliases;
        while let Some((target, ttl)) = alias(&answer.answers, &self.question) {
            self.aliases += 1;
            if self.aliases > MAX_ALIASES {
                return Some(Err(Refusal::Malformed("more than 8 aliases in a row")));
            }
            self.ttl = least(self.ttl, Some(ttl));
            self.question.name = target;
        }
        let mut found = self.records(answer.answers);
        if !found.data.is_empty() || !found.malformed.is_empty() {
            found.additional = answer.additional;
            return Some(Ok(found));
        }
        if let Some(ttl) = negative_ttl(&answer.authority) {
            found.ttl = least(found.ttl, Some(ttl));
            return Some(Ok(found));
        }
        if answer.code == NAME_ERROR {
            // Not to be kept without an SOA (RFC 2308, section 5).
            found.ttl = None;
            return Some(Ok(found));
        }
        if self.aliases > before {
            return None;
        }
        if answer
            .authority
            .iter()
            .any(|record| record.data == Data::Ns)
        {
            return Some(Err(Refusal::Malformed(
                "a referral to other servers: this one does not answer for the name",
            )));
        }
        found.ttl = None;
        Some(Ok(found))
    }

    fn records(&self, answers: Vec<Record>) -> Found {
        let mut found = Found {
            ttl: self.ttl,
            ..Found::default()
        };
        let kind = self.question.kind.code();
        for record in answers {
            match record.data {
                // The owner's name may be what is malformed.
                Data::Malformed(of, reason)
                    if of == kind
                        && (record.name == self.question.name || record.name.is_root()) =>
                {
                    found.malformed.push(reason);
                }
                data if data.is_of(self.question.kind) && record.name == self.question.name => {
                    found.data.push(data);
                }
                _ => continue,
            }
            found.ttl = least(found.ttl, Some(record.ttl));
        }
        found
    }
}

/// The alias of the name, unless the name has the wanted records.
fn alias(answers: &[Record], question: &Question) -> Option<(Name, u32)> {
    answers.iter().find_map(|record| match &record.data {
        Data::Cname(target) if record.name == question.name => Some((target.clone(), record.ttl)),
        _ => None,
    })
}

/// The time for which an empty answer is valid (RFC 2308, section 5).
fn negative_ttl(authority: &[Record]) -> Option<u32> {
    authority.iter().find_map(|record| match record.data {
        Data::Soa { minimum } => Some(minimum.min(record.ttl)),
        _ => None,
    })
}

/// The lesser of two times. None is not known.
pub(super) fn least(a: Option<u32>, b: Option<u32>) -> Option<u32> {
    a.into_iter().chain(b).min()
}
