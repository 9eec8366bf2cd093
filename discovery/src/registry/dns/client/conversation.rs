//! Questions to one server, over one TCP connection, or over UDP where no connection can be made.
//!
//! TCP comes first because answers over UDP are cut: most servers say so, but Consul answers with a random
//! choice of the instances and does not.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket, lookup_host},
    time::timeout,
};
use tracing::debug;

use super::failure::Failure;
use crate::registry::dns::message::{self, Message, Question};

/// Questions that are sent before their answers are read (RFC 7766, section 6.2.1.1).
const PIPELINED: usize = 32;

/// Times that a question is sent over UDP within its limit.
const SENT: u32 = 2;

/// Larger than any answer over UDP within the payload that the query allows.
const BUFFER: usize = 4096;

pub(in super::super) struct Conversation {
    transport: Transport,
    /// For each connection and answer.
    limit: Duration,
}

enum Transport {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Conversation {
    /// Connects to a server, given as `HOST:PORT`.
    pub(in super::super) async fn open(server: &str, limit: Duration) -> Result<Self, Failure> {
        let connected = timeout(limit, TcpStream::connect(server)).await;
        let transport = match connected {
            Ok(Ok(stream)) => {
                // A question is one small write, which must not wait for the answer to another.
                stream.set_nodelay(true)?;
                Transport::Tcp(stream)
            }
            Ok(Err(error)) => {
                debug!(server, "asks over UDP: no TCP connection: {error}");
                Transport::Udp(udp(server).await?)
            }
            Err(_elapsed) => {
                debug!(server, "asks over UDP: no TCP connection in {limit:?}");
                Transport::Udp(udp(server).await?)
            }
        };
        Ok(Self { transport, limit })
    }

    /// The answers to these questions, in their order.
    pub(in super::super) async fn ask(
        &mut self,
        questions: &[Question],
    ) -> Result<Vec<Message>, Failure> {
        let limit = self.limit;
        let mut answers = Vec::with_capacity(questions.len());
        match &mut self.transport {
            Transport::Tcp(stream) => {
                for some in questions.chunks(PIPELINED) {
                    let asked = timeout(limit, ask_over_tcp(stream, some));
                    let some = asked.await.map_err(|_| Failure::timeout(limit))?;
                    answers.extend(some?);
                }
            }
            Transport::Udp(socket) => {
                for question in questions {
                    answers.push(ask_over_udp(socket, question, limit).await?);
                }
            }
        }
        Ok(answers)
    }
}

/// A socket for this server alone, on a port of the system's choice.
async fn udp(server: &str) -> io::Result<UdpSocket> {
    let mut last = None;
    for address in lookup_host(server).await? {
        let local = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(local).await?;
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("the server's name has no address")))
}

async fn ask_over_tcp(
    stream: &mut TcpStream,
    questions: &[Question],
) -> Result<Vec<Message>, Failure> {
    let first = fastrand::u16(..);
    let mut bytes = Vec::new();
    for (id, question) in ids(first).zip(questions) {
        let query = message::query(id, question, false);
        // A query has at most 300 bytes.
        let length = u16::try_from(query.len()).unwrap_or_default();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&query);
    }
    stream.write_all(&bytes).await?;
    // Servers may answer in another order.
    let mut answers: Vec<Option<Message>> = questions.iter().map(|_| None).collect();
    for _ in questions {
        let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut bytes).await?;
        let answer = Message::read(&bytes)
            .map_err(|reason| Failure::Malformed(format!("not a DNS answer: {reason}")))?;
        let at = usize::from(answer.id.wrapping_sub(first));
        let free = answers.get_mut(at).filter(|slot| slot.is_none());
        let asked = questions.get(at).filter(|q| answer.is_answer_to(q));
        let (Some(slot), Some(_)) = (free, asked) else {
            return Err(Failure::Malformed(
                "the answer to another question".to_owned(),
            ));
        };
        if answer.truncated {
            return Err(Failure::Malformed(
                "the answer over TCP is truncated".to_owned(),
            ));
        }
        *slot = Some(answer);
    }
    Ok(answers.into_iter().flatten().collect())
}

fn ids(first: u16) -> impl Iterator<Item = u16> {
    (0..=u16::MAX).map(move |nth| first.wrapping_add(nth))
}

async fn ask_over_udp(
    socket: &UdpSocket,
    question: &Question,
    limit: Duration,
) -> Result<Message, Failure> {
    let id = fastrand::u16(..);
    let query = message::query(id, question, true);
    let mut buffer = vec![0; BUFFER];
    for _ in 0..SENT {
        socket.send(&query).await?;
        let Ok(answer) = timeout(limit / SENT, receive(socket, &mut buffer, id, question)).await
        else {
            continue;
        };
        let answer = answer?;
        if answer.truncated {
            return Err(Failure::Malformed(
                "the answer does not fit into UDP, and the server takes no TCP connection"
                    .to_owned(),
            ));
        }
        return Ok(answer);
    }
    Err(Failure::timeout(limit))
}

/// The next answer to this question. Other datagrams may be late answers, or forged.
async fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    id: u16,
    question: &Question,
) -> io::Result<Message> {
    loop {
        let length = socket.recv(buffer).await?;
        match Message::read(buffer.get(..length).unwrap_or_default()) {
            Ok(answer) if answer.id == id && answer.is_answer_to(question) => return Ok(answer),
            Ok(_) => debug!(name = %question.name, "ignores the answer to another question"),
            Err(reason) => debug!(name = %question.name, "ignores a datagram: {reason}"),
        }
    }
}
