//! A DNS server with answers from the test, over TCP, UDP or both.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

pub(crate) const A: u16 = 1;
pub(crate) const NS: u16 = 2;
pub(crate) const CNAME: u16 = 5;
pub(crate) const SOA: u16 = 6;
pub(crate) const TXT: u16 = 16;
pub(crate) const AAAA: u16 = 28;
pub(crate) const SRV: u16 = 33;

/// A record: owner, type, TTL, data.
pub(crate) type Record = (String, u16, u32, Vec<u8>);

/// What the server does with a question.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) code: u8,
    pub(crate) truncated: bool,
    /// Added to the question's ID.
    pub(crate) id_offset: u16,
    /// No answer at all.
    pub(crate) silent: bool,
    /// Answers about this name instead.
    pub(crate) about: Option<&'static str>,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) additional: Vec<Record>,
}

impl Reply {
    pub(crate) fn code(code: u8) -> Self {
        Self {
            code,
            ..Self::default()
        }
    }

    pub(crate) fn answers(answers: impl IntoIterator<Item = Record>) -> Self {
        Self {
            answers: answers.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(crate) fn with_additional(mut self, records: impl IntoIterator<Item = Record>) -> Self {
        self.additional.extend(records);
        self
    }

    pub(crate) fn with_authority(mut self, records: impl IntoIterator<Item = Record>) -> Self {
        self.authority.extend(records);
        self
    }
}

pub(crate) fn srv(owner: &str, [priority, weight, port]: [u16; 3], target: &str) -> Record {
    let mut data: Vec<u8> = [priority, weight, port]
        .iter()
        .flat_map(|n| n.to_be_bytes())
        .collect();
    data.extend(name(target));
    (owner.to_owned(), SRV, 0, data)
}

pub(crate) fn cname(owner: &str, target: &str) -> Record {
    (owner.to_owned(), CNAME, 0, name(target))
}

pub(crate) fn address(owner: &str, ip: &str) -> Record {
    match ip.parse().unwrap() {
        IpAddr::V4(ip) => (owner.to_owned(), A, 0, ip.octets().to_vec()),
        IpAddr::V6(ip) => (owner.to_owned(), AAAA, 0, ip.octets().to_vec()),
    }
}

/// An SOA with this TTL and minimum.
pub(crate) fn soa(ttl: u32, minimum: u32) -> Record {
    let mut data = [name("ns.x"), name("mail.x"), vec![0; 16]].concat();
    data.extend(minimum.to_be_bytes());
    ("x".to_owned(), SOA, ttl, data)
}

pub(crate) fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// The transports that a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    Udp,
}

/// A question: name, type, and the transport that it came over.
pub(crate) type Asked = (String, u16, Over);

#[derive(Default)]
struct Script {
    replies: HashMap<(String, u16), Reply>,
    /// For every other question.
    otherwise: Reply,
    asked: Vec<Asked>,
}

/// A running server. Dropping it ends it.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    _tasks: JoinSet<()>,
}

impl Scripted {
    /// A server that answers NXDOMAIN to everything that it is not given.
    pub(crate) async fn start(over: &[Over]) -> Self {
        // A port that is free for both.
        let (tcp, udp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script {
            otherwise: Reply::code(3),
            ..Script::default()
        }));
        let mut tasks = JoinSet::new();
        if over.contains(&Over::Tcp) {
            tasks.spawn(serve_tcp(tcp, Arc::clone(&script)));
        }
        if over.contains(&Over::Udp) {
            tasks.spawn(serve_udp(udp, Arc::clone(&script)));
        }
        Self {
            address,
            script,
            _tasks: tasks,
        }
    }

    pub(crate) fn set(&self, name: &str, kind: u16, reply: Reply) {
        let mut script = self.script.lock().unwrap();
        script.replies.insert((name.to_owned(), kind), reply);
    }

    /// The reply to every question without one of its own.
    pub(crate) fn set_otherwise(&self, reply: Reply) {
        self.script.lock().unwrap().otherwise = reply;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    /// With a fast refresh.
    pub(crate) fn url(&self, name: &str) -> String {
        format!(
            "dns://{}/{name}?min_refresh=100ms&timeout=400ms",
            self.address
        )
    }
}

async fn serve_tcp(listener: TcpListener, script: Arc<Mutex<Script>>) {
    let mut clients = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let script = Arc::clone(&script);
        clients.spawn(async move { _ = serve_client(stream, &script).await });
    }
}

async fn serve_client(mut stream: TcpStream, script: &Mutex<Script>) -> std::io::Result<()> {
    loop {
        let mut query = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut query).await?;
        if let Some(answer) = react(script, &query, Over::Tcp) {
            stream
                .write_u16(u16::try_from(answer.len()).unwrap())
                .await?;
            stream.write_all(&answer).await?;
        }
    }
}

async fn serve_udp(socket: UdpSocket, script: Arc<Mutex<Script>>) {
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        if let Some(answer) = react(&script, &buffer[..length], Over::Udp) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

fn react(script: &Mutex<Script>, query: &[u8], over: Over) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(std::str::from_utf8(&query[at + 1..end]).unwrap());
        at = end;
    }
    let (asked, kind) = (
        labels.join("."),
        u16::from_be_bytes([query[at + 1], query[at + 2]]),
    );
    let mut script = script.lock().unwrap();
    script.asked.push((asked.clone(), kind, over));
    let reply = script.replies.get(&(asked.clone(), kind));
    let reply = reply.unwrap_or(&script.otherwise);
    if reply.silent {
        return None;
    }
    let id = u16::from_be_bytes([query[0], query[1]]).wrapping_add(reply.id_offset);
    let flags = 0x8180 | u16::from(reply.code) | u16::from(reply.truncated) << 9;
    let sections = [&reply.answers, &reply.authority, &reply.additional];
    let counts = sections.map(|records| u16::try_from(records.len()).unwrap());
    let mut answer = Vec::new();
    for number in [id, flags, 1, counts[0], counts[1], counts[2]] {
        answer.extend(number.to_be_bytes());
    }
    answer.extend(name(reply.about.unwrap_or(&asked)));
    answer.extend(&query[at + 1..at + 5]);
    for (owner, kind, ttl, data) in sections.into_iter().flatten() {
        answer.extend(name(owner));
        answer.extend(kind.to_be_bytes());
        answer.extend(1_u16.to_be_bytes());
        answer.extend(ttl.to_be_bytes());
        answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}
