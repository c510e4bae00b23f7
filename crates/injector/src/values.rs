//! The texts that both the configuration file and a pod's annotations may hold, checked before
//! they reach a pod: what is wrong in them would else be found by a container that does not start.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

/// One of the questions of what is captured. Each is a key of the configuration's `capture`, an
/// annotation of a pod, and an environment variable of `outrider-init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CaptureItem {
    /// Ports of the pod to capture: `*` or a list.
    IncludeInboundPorts,
    /// Ports of the pod to leave alone.
    ExcludeInboundPorts,
    /// Destination ports to capture even at addresses that the CIDRs leave out.
    IncludeOutboundPorts,
    /// Destination ports to leave alone.
    ExcludeOutboundPorts,
    /// Destinations to capture: `*` or a list of CIDRs and addresses.
    IncludeCidrs,
    /// Destinations to leave alone.
    ExcludeCidrs,
    /// Network interfaces to leave alone.
    ExcludeInterfaces,
}

impl CaptureItem {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::IncludeInboundPorts,
        Self::ExcludeInboundPorts,
        Self::IncludeOutboundPorts,
        Self::ExcludeOutboundPorts,
        Self::IncludeCidrs,
        Self::ExcludeCidrs,
        Self::ExcludeInterfaces,
    ];

    /// The annotation's name without the prefix `outrider.dev/`.
    pub fn annotation(self) -> &'static str {
        match self {
            Self::IncludeInboundPorts => "include-inbound-ports",
            Self::ExcludeInboundPorts => "exclude-inbound-ports",
            Self::IncludeOutboundPorts => "include-outbound-ports",
            Self::ExcludeOutboundPorts => "exclude-outbound-ports",
            Self::IncludeCidrs => "include-cidrs",
            Self::ExcludeCidrs => "exclude-cidrs",
            Self::ExcludeInterfaces => "exclude-interfaces",
        }
    }

    /// The environment variable of `outrider-init`.
    pub fn variable(self) -> &'static str {
        match self {
            Self::IncludeInboundPorts => "OUTRIDER_INCLUDE_INBOUND_PORTS",
            Self::ExcludeInboundPorts => "OUTRIDER_EXCLUDE_INBOUND_PORTS",
            Self::IncludeOutboundPorts => "OUTRIDER_INCLUDE_OUTBOUND_PORTS",
            Self::ExcludeOutboundPorts => "OUTRIDER_EXCLUDE_OUTBOUND_PORTS",
            Self::IncludeCidrs => "OUTRIDER_INCLUDE_CIDRS",
            Self::ExcludeCidrs => "OUTRIDER_EXCLUDE_CIDRS",
            Self::ExcludeInterfaces => "OUTRIDER_EXCLUDE_INTERFACES",
        }
    }

    /// Checks a value by the rules of `outrider-init`: what passes here passes there.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub fn check(self, text: &str) -> Result<(), String> {
        let all_allowed = matches!(self, Self::IncludeInboundPorts | Self::IncludeCidrs);
        match text.trim() {
            "" => return Ok(()),
            "*" if all_allowed => return Ok(()),
            _ => {}
        }
        for item in text.split(',').map(str::trim) {
            if item == "*" {
                return Err(if all_allowed {
                    "`*` cannot be in a list: it stands alone, for all".to_owned()
                } else {
                    "`*` is not taken here: nothing would be left to capture".to_owned()
                });
            }
            match self {
                Self::IncludeCidrs | Self::ExcludeCidrs => check_cidr(item)?,
                Self::ExcludeInterfaces => check_interface(item)?,
                _ => check_ports(item)?,
            }
        }
        Ok(())
    }
}

fn check_ports(item: &str) -> Result<(), String> {
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!(
            "`{item}` is not a port: write a number from 1 to 65535, or a range like 8000-8010"
        )),
    };
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!(
            "the range `{item}` ends before it starts: write {last}-{first}"
        ));
    }
    Ok(())
}

fn check_cidr(item: &str) -> Result<(), String> {
    if item.parse::<IpAddr>().is_err() && item.parse::<IpNet>().is_err() {
        return Err(format!(
            "`{item}` is not a CIDR: write one like 10.0.0.0/8 or fd00::/8"
        ));
    }
    Ok(())
}

fn check_interface(item: &str) -> Result<(), String> {
    // IFNAMSIZ less the terminating zero; the kernel allows no slash and no space.
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"/\"'\\!".contains(&byte);
    if item == "+" {
        return Err("`+` is every interface, so nothing would be captured".to_owned());
    }
    if item.is_empty() || item.len() > 15 || item.starts_with('-') || !item.bytes().all(allowed) {
        return Err(format!(
            "`{item}` is not the name of an interface: at most 15 characters, a `+` at the end \
             stands for any ending"
        ));
    }
    Ok(())
}

/// An amount of a resource as Kubernetes writes it (`100m`, `64Mi`, `1.5`, `2e3`).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Quantity {
    text: String,
    #[serde(skip)]
    amount: f64,
}

impl Quantity {
    /// Whether it is more than another. Beyond 2^53 the two are compared roughly.
    pub fn exceeds(&self, other: &Self) -> bool {
        self.amount > other.amount
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The grammar of `k8s.io/apimachinery/pkg/api/resource`: a decimal number, then one of the binary
/// or decimal suffixes, or an exponent. Negative amounts are of no use here.
impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is not an amount of a resource: write one like 100m, 0.5, 64Mi or 1G")
        };
        let end = text
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let factor = match suffix {
            "" => 1.0,
            "n" => 1e-9,
            "u" => 1e-6,
            "m" => 1e-3,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            "T" => 1e12,
            "P" => 1e15,
            "E" => 1e18,
            "Ki" => 1024.0,
            "Mi" => 1024f64.powi(2),
            "Gi" => 1024f64.powi(3),
            "Ti" => 1024f64.powi(4),
            "Pi" => 1024f64.powi(5),
            "Ei" => 1024f64.powi(6),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(wrong)?;
                let exponent: i16 = exponent.parse().map_err(|_| wrong())?;
                10f64.powi(exponent.into())
            }
        };
        Ok(Self {
            text: text.to_owned(),
            amount: number * factor,
        })
    }
}

/// YAML has `1` as a number, which Kubernetes takes as well.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Whole(u64),
            Fraction(f64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Whole(number) => number.to_string(),
            Written::Fraction(number) => number.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Checks a level of the sidecar's log: one for all parts, or by part.
///
/// # Errors
/// What is wrong, and what to write.
pub fn check_log_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // Envoy's names, which the sidecar takes when they stand alone.
    if matches!(text, "warning" | "critical") {
        return Ok(());
    }
    for directive in text.split(',') {
        let (part, level) = match directive.split_once('=') {
            Some((part, level)) => (Some(part), level),
            None => (None, directive),
        };
        let is_part = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b))
        };
        if !part.is_none_or(is_part) || !LEVELS.contains(&level) {
            return Err(format!(
                "`{directive}` is not a log level: write one of {}, or by part \
                 (info,outrider_sidecar::tls=debug)",
                LEVELS.join(", ")
            ));
        }
    }
    Ok(())
}

/// Checks the name of an image roughly; what it stands for only a registry knows.
///
/// # Errors
/// What is wrong.
pub fn check_image(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 1024 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "`{text}` is not the name of an image: write one like registry.example/outrider:1.0"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capture_lists_are_taken_as_the_init_program_takes_them() {
        use CaptureItem::*;
        for (item, text, expected) in [
            (IncludeInboundPorts, "*", None),
            (IncludeInboundPorts, "", None),
            (ExcludeInboundPorts, "80, 8000-8010", None),
            (ExcludeInboundPorts, "*", Some("nothing would be left")),
            (IncludeInboundPorts, "*,80", Some("stands alone")),
            (ExcludeOutboundPorts, "0", Some("`0` is not a port")),
            (ExcludeOutboundPorts, "80,", Some("`` is not a port")),
            (ExcludeOutboundPorts, "90-80", Some("write 80-90")),
            (ExcludeCidrs, "10.0.0.0/8,fd00::1", None),
            (ExcludeCidrs, "10.0.0.0/33", Some("10.0.0.0/33")),
            (ExcludeInterfaces, "net1,veth+", None),
            (ExcludeInterfaces, "+", Some("every interface")),
        ] {
            let result = item.check(text);
            match (expected, result) {
                (None, Ok(())) => {}
                (Some(part), Err(problem)) => assert!(problem.contains(part), "{text}: {problem}"),
                (_, result) => panic!("{item:?} {text}: {result:?}"),
            }
        }
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        let amount = |text: &str| text.parse::<Quantity>().map(|quantity| quantity.amount);
        assert_eq!(amount("100m"), Ok(0.1));
        assert_eq!(amount("1.5"), Ok(1.5));
        assert_eq!(amount("64Mi"), Ok(67_108_864.0));
        assert_eq!(amount("2e3"), Ok(2000.0));
        for wrong in ["", "-1", "1mb", "Mi", "1e", "1.2.3", "1 Gi"] {
            assert!(amount(wrong).is_err(), "{wrong}");
        }
        let quantity: Quantity = serde_norway::from_str("1").unwrap();
        assert!(quantity.exceeds(&"999m".parse().unwrap()));
    }

    #[test]
    fn log_levels() {
        for good in ["info", "warning", "info,outrider_sidecar::tls=debug", "off"] {
            assert_eq!(check_log_level(good), Ok(()), "{good}");
        }
        for bad in ["", "loud", "=info", "tls=", "info;debug", "a b=info"] {
            assert!(check_log_level(bad).is_err(), "{bad}");
        }
    }
}
