//! What the first bytes of a connection are, read from the wire itself.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

/// How many bytes of each direction are shown.
const SHOWN: usize = 16;

/// Says of the first recorded connection to `server` how it began, a line for each direction;
/// `None` where there was none.
///
/// # Errors
/// When a connection to it did not begin with a TLS 1.3 handshake.
pub(super) fn handshake(
    streams: &[((SocketAddr, SocketAddr), Vec<u8>)],
    server: SocketAddr,
) -> Result<Option<Vec<String>>> {
    let mut connections = streams
        .iter()
        .filter(|((_, to), begin)| *to == server && !begin.is_empty());
    let Some(((client, _), hello)) = connections.next() else {
        return Ok(None);
    };
    let answer = streams
        .iter()
        .find(|((from, to), begin)| *from == server && to == client && !begin.is_empty());
    let (_, answer) = answer.context("the server said nothing")?;
    ensure!(
        handshake_type(hello) == Some(CLIENT_HELLO),
        "a connection to {server} began with {}",
        hexadecimal(hello)
    );
    let version = chosen_version(answer);
    ensure!(
        version == Some(TLS_1_3),
        "{server} answered with {}, version {version:x?}",
        hexadecimal(answer)
    );
    let names = server_name(hello).map_or(String::new(), |name| format!(", for {name}"));
    Ok(Some(vec![
        format!("{} ...  ClientHello{names}", hexadecimal(hello)),
        format!("{} ...  ServerHello, TLS 1.3 chosen", hexadecimal(answer)),
    ]))
}

/// RFC 8446 section 5.1.
const HANDSHAKE_RECORD: u8 = 22;
/// RFC 8446 section 4.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// RFC 8446 section 4.2.1: `supported_versions`, in a ServerHello the one that was chosen.
const SUPPORTED_VERSIONS: u16 = 43;
const TLS_1_3: u16 = 0x0304;
/// RFC 6066 section 3.
const SERVER_NAME: u16 = 0;

fn hexadecimal(bytes: &[u8]) -> String {
    let shown = bytes.iter().take(SHOWN);
    let shown: Vec<String> = shown.map(|byte| format!("{byte:02x}")).collect();
    shown.join(" ")
}

/// The kind of the handshake message that a stream begins with.
fn handshake_type(stream: &[u8]) -> Option<u8> {
    (*stream.first()? == HANDSHAKE_RECORD).then(|| stream.get(5).copied())?
}

fn chosen_version(stream: &[u8]) -> Option<u16> {
    (handshake_type(stream)? == SERVER_HELLO).then_some(())?;
    // Record and handshake headers, the legacy version and the random; then the session's id, the
    // cipher suite and the compression method.
    let rest = skip_vector8(stream.get(9 + 2 + 32..)?)?.get(3..)?;
    extension(rest, SUPPORTED_VERSIONS).and_then(u16_at)
}

fn server_name(stream: &[u8]) -> Option<String> {
    let rest = skip_vector8(stream.get(9 + 2 + 32..)?)?;
    let suites = usize::from(u16_at(rest)?);
    let rest = skip_vector8(rest.get(2 + suites..)?)?;
    // A list of one name: its length, the kind, the name's length.
    let name = extension(rest, SERVER_NAME)?.get(5..)?;
    String::from_utf8(name.to_vec()).ok()
}

/// The body of an extension among those that `rest` begins with.
fn extension(rest: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut list = rest.get(2..)?.get(..usize::from(u16_at(rest)?))?;
    loop {
        let kind = u16_at(list)?;
        let length = usize::from(u16_at(list.get(2..)?)?);
        let body = list.get(4..4 + length)?;
        if kind == wanted {
            return Some(body);
        }
        list = list.get(4 + length..)?;
    }
}

fn skip_vector8(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(1 + usize::from(*bytes.first()?)..)
}

fn u16_at(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.first_chunk()?))
}
