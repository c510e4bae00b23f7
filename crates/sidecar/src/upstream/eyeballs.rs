//! Connecting to an endpoint that has several addresses, in the way of RFC 8305 ("happy eyeballs"):
//! the next address is tried when one has failed, or has not answered for a while; the first that
//! connects is taken.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::config::cluster::HappyEyeballs;

/// How long the last attempt may be alone ("Connection Attempt Delay", RFC 8305, section 5).
const DELAY: Duration = Duration::from_millis(300);

/// The order in which addresses are tried (RFC 8305, section 4): some of one family, then the two by
/// turns. Within a family the order stays.
pub fn order(
    first: SocketAddr,
    others: &[SocketAddr],
    preference: &HappyEyeballs,
) -> Vec<SocketAddr> {
    let v6_first = preference.v6_first.unwrap_or(first.is_ipv6());
    let all = || std::iter::once(first).chain(others.iter().copied());
    let mut preferred = all().filter(|address| address.is_ipv6() == v6_first);
    let mut rest = all().filter(|address| address.is_ipv6() != v6_first);
    let mut ordered: Vec<_> = preferred
        .by_ref()
        .take(preference.first_count as usize)
        .collect();
    loop {
        let pair = [rest.next(), preferred.next()];
        if pair == [None, None] {
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

/// Tries the addresses in that order.
///
/// # Errors
/// That of the last attempt to fail, once all have.
pub async fn race<T, E, Attempt: Future<Output = Result<T, E>>>(
    first: SocketAddr,
    others: Vec<SocketAddr>,
    mut attempt: impl FnMut(SocketAddr) -> Attempt,
) -> Result<T, E> {
    let mut others = others.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut outcome = None;
    attempts.push(attempt(first));
    loop {
        tokio::select! {
            ended = attempts.next() => match ended {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(error)) => {
                    outcome = Some(error);
                    if let Some(address) = others.next() {
                        attempts.push(attempt(address));
                    }
                }
                // The set is empty only after a failure.
                None => if let Some(error) = outcome.take() {
                    return Err(error);
                },
            },
            () = tokio::time::sleep(DELAY), if others.len() > 0 => {
                attempts.extend(others.next().map(&mut attempt));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        match text.contains('.') {
            true => format!("{text}:1").parse().unwrap(),
            false => format!("[{text}]:1").parse().unwrap(),
        }
    }

    #[test]
    fn families_take_turns() {
        let default = HappyEyeballs::default();
        let v4 = HappyEyeballs {
            v6_first: Some(false),
            first_count: 2,
        };
        for (addresses, preference, want) in [
            (
                "::1 ::2 10.0.0.1 10.0.0.2",
                &default,
                "::1 10.0.0.1 ::2 10.0.0.2",
            ),
            ("10.0.0.1 ::1 ::2 ::3", &default, "10.0.0.1 ::1 ::2 ::3"),
            (
                "::1 ::2 10.0.0.1 10.0.0.2",
                &v4,
                "10.0.0.1 10.0.0.2 ::1 ::2",
            ),
            (
                "::1 10.0.0.1 10.0.0.2 10.0.0.3",
                &v4,
                "10.0.0.1 10.0.0.2 ::1 10.0.0.3",
            ),
            ("::1", &v4, "::1"),
        ] {
            let of = |text: &str| text.split(' ').map(address).collect::<Vec<_>>();
            let addresses = of(addresses);
            let ordered = order(addresses[0], &addresses[1..], preference);
            assert_eq!(ordered, of(want), "{addresses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_overtaken_and_who_refuses_at_once() {
        let tried = RefCell::new(Vec::new());
        let start = tokio::time::Instant::now();
        let attempt = |address: SocketAddr| {
            tried
                .borrow_mut()
                .push((address.ip().to_string(), start.elapsed().as_millis()));
            async move {
                match address.ip().to_string().as_str() {
                    "10.0.0.1" => std::future::pending().await,
                    "10.0.0.2" => Err("refused"),
                    "10.0.0.4" => Err("refused too"),
                    _ => Ok(address),
                }
            }
        };
        let others = ["10.0.0.2", "10.0.0.3"].map(address).to_vec();
        let connected = race(address("10.0.0.1"), others, attempt).await;
        assert_eq!(connected, Ok(address("10.0.0.3")));
        let expected = [("10.0.0.1", 0), ("10.0.0.2", 300), ("10.0.0.3", 300)];
        let expected = expected.map(|(address, at)| (address.to_owned(), at));
        assert_eq!(*tried.borrow(), expected);
        let failed = race(address("10.0.0.2"), vec![address("10.0.0.4")], attempt).await;
        assert_eq!(failed, Err("refused too"));
    }
}
