//! A DNS server whose answers a test changes while it runs.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};

use super::{Server, thread};

/// How often the UDP thread looks whether it is to end.
const TICK: Duration = Duration::from_millis(20);

/// What it makes of questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Answers from its records.
    #[default]
    Answers,
    /// Says SERVFAIL.
    Fails,
    /// Says nothing.
    Silent,
}

/// Serves on one port of 127.0.0.1, over UDP and TCP.
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    stopping: Arc<AtomicBool>,
    udp: Option<JoinHandle<()>>,
    tcp: Server,
}

#[derive(Default)]
struct Zone {
    /// By name in lower case, without the final dot.
    records: HashMap<String, (Vec<IpAddr>, u32)>,
    mood: Mood,
    questions: Vec<(String, RecordType)>,
}

impl Dns {
    /// A server that knows no name.
    ///
    /// # Errors
    /// When there is no port, or no thread.
    pub fn start() -> Result<Self> {
        let (socket, listener) = sockets()?;
        socket
            .set_read_timeout(Some(TICK))
            .context("set the read timeout")?;
        let address = socket.local_addr().context("read the address")?;
        let zone = Arc::new(Mutex::new(Zone::default()));
        let stopping = Arc::new(AtomicBool::new(false));
        let over_tcp = Arc::clone(&zone);
        let tcp = Server::start(listener, move |mut connection| {
            loop {
                let mut length = [0; 2];
                connection.read_exact(&mut length)?;
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                connection.read_exact(&mut question)?;
                if let Some(answer) = answer(&over_tcp, &question) {
                    let length = u16::try_from(answer.len())?;
                    connection.write_all(&length.to_be_bytes())?;
                    connection.write_all(&answer)?;
                }
            }
        })?;
        let (over_udp, stop) = (Arc::clone(&zone), Arc::clone(&stopping));
        let udp = thread("dns", move || {
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::Acquire) {
                if let Ok((length, peer)) = socket.recv_from(&mut buffer)
                    && let Some(answer) = answer(&over_udp, &buffer[..length])
                {
                    // Who asked may have gone.
                    let _ = socket.send_to(&answer, peer);
                }
            }
        })?;
        Ok(Dns {
            address,
            zone,
            stopping,
            udp: Some(udp),
            tcp,
        })
    }

    /// Where it is asked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn zone(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a name these addresses, good for `ttl` seconds.
    pub fn set(&self, name: &str, addresses: &[IpAddr], ttl: u32) {
        let records = (addresses.to_vec(), ttl);
        self.zone()
            .records
            .insert(name.to_ascii_lowercase(), records);
    }

    /// Forgets a name: it does not exist (NXDOMAIN).
    pub fn remove(&self, name: &str) {
        self.zone().records.remove(&name.to_ascii_lowercase());
    }

    /// Changes what it makes of questions.
    pub fn set_mood(&self, mood: Mood) {
        self.zone().mood = mood;
    }

    /// How often it was asked for a name.
    pub fn questions(&self, name: &str) -> usize {
        let zone = self.zone();
        zone.questions
            .iter()
            .filter(|(asked, _)| asked == name)
            .count()
    }

    /// How many connections came over TCP.
    pub fn connections(&self) -> usize {
        self.tcp.accepted()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(udp) = self.udp.take() {
            let _ = udp.join();
        }
    }
}

/// A port that is free for both.
fn sockets() -> Result<(UdpSocket, TcpListener)> {
    let mut last = None;
    for _ in 0..16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind for TCP")?;
        match UdpSocket::bind(listener.local_addr().context("read the address")?) {
            Ok(socket) => return Ok((socket, listener)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no attempt")?).context("bind for UDP")
}

/// The answer to one message, if there is to be one.
fn answer(zone: &Mutex<Zone>, message: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(message).ok()?;
    let query = question.queries.first()?.clone();
    let name = query.name().to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.').to_owned();
    let mut zone = zone.lock().unwrap_or_else(PoisonError::into_inner);
    zone.questions.push((name.clone(), query.query_type()));
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    match (zone.mood, zone.records.get(&name)) {
        (Mood::Silent, _) => return None,
        (Mood::Fails, _) => answer.metadata.response_code = ResponseCode::ServFail,
        (Mood::Answers, None) => answer.metadata.response_code = ResponseCode::NXDomain,
        (Mood::Answers, Some((addresses, ttl))) => {
            for address in addresses {
                let data = match (address, query.query_type()) {
                    (IpAddr::V4(address), RecordType::A) => RData::A((*address).into()),
                    (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA((*address).into()),
                    _ => continue,
                };
                answer.add_answer(Record::from_rdata(query.name().clone(), *ttl, data));
            }
        }
    }
    answer.to_vec().ok()
}
