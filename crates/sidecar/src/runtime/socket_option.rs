//! Setting socket options that a configuration names by numbers.
#![allow(unsafe_code)] // No safe interface takes options by number: see `set`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::config::socket_option::{SocketOption, SocketState};

/// Why an option was not set.
#[derive(Debug, thiserror::Error)]
#[error("cannot set the socket option {option}: {source}")]
pub struct OptionError {
    option: String,
    #[source]
    source: io::Error,
}

impl From<OptionError> for io::Error {
    fn from(error: OptionError) -> Self {
        io::Error::new(error.source.kind(), error.to_string())
    }
}

/// Sets the options of this state that are for such a stream socket. `ipv6` is unset for a Unix
/// socket.
///
/// # Errors
/// The first option that the system refuses.
pub fn apply(
    options: &[SocketOption],
    state: SocketState,
    socket: &impl AsFd,
    ipv6: Option<bool>,
) -> Result<(), OptionError> {
    let concerns = |option: &&SocketOption| {
        let family = match ipv6 {
            Some(true) => option.ipv6,
            Some(false) => option.ipv4,
            None => option.ipv4 && option.ipv6,
        };
        option.state == state && option.stream && family
    };
    for option in options.iter().filter(concerns) {
        set(socket, option.level, option.name, &option.value).map_err(|source| OptionError {
            option: match &*option.description {
                "" => format!("{}/{}", option.level, option.name),
                text => format!("{}/{} ({text})", option.level, option.name),
            },
            source,
        })?;
    }
    Ok(())
}

/// Sets one option that is a number.
///
/// # Errors
/// The system refuses it.
pub fn set_number(socket: &impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set(socket, level, name, &value.to_ne_bytes())
}

fn set(socket: &impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the descriptor is open while `socket` is borrowed, and the kernel reads `length`
    // bytes of `value`, which are there.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            length,
        )
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: i32, value: i32) -> SocketOption {
        SocketOption {
            description: "keep-alive".into(),
            level: libc::SOL_SOCKET,
            name,
            value: Box::from(value.to_ne_bytes()),
            state: SocketState::Prebind,
            stream: true,
            ipv4: true,
            ipv6: false,
        }
    }

    #[test]
    fn only_the_options_for_a_socket_are_set() {
        let cases = [
            (SocketState::Prebind, true, Some(false), true),
            (SocketState::Bound, true, Some(false), false),
            (SocketState::Prebind, false, Some(false), false),
            (SocketState::Prebind, true, Some(true), false),
        ];
        for (state, stream, ipv6, expected) in cases {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let options = [SocketOption {
                stream,
                ..option(libc::SO_KEEPALIVE, 1)
            }];
            apply(&options, state, &socket, ipv6).unwrap();
            let set = socket2::SockRef::from(&socket).keepalive().unwrap();
            assert_eq!(set, expected, "{state:?} {stream} {ipv6:?}");
        }
    }

    #[test]
    fn an_option_that_the_system_refuses_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let options = [option(9999, 1)];
        let error = apply(&options, SocketState::Prebind, &socket, Some(false));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("1/9999 (keep-alive)"), "{error}");
    }
}
