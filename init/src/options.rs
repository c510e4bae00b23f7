//! The command line and the environment, and their validation.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::config::{Config, Include, Interface, Ipv6, PortRange};

const AFTER_HELP: &str = "\
WHAT IT DOES
  It redirects the TCP of this network namespace (one pod) to the proxy:
    in   every connection that reaches the pod goes to --inbound-port;
    out  every connection that a program of the pod makes goes to --outbound-port, unless the
         program runs as --proxy-uid or --proxy-gid, or the connection stays on loopback;
    self the proxy's own connection to an address of the pod comes back in on --inbound-port,
         so a pod that calls itself by its service's address is held to its own policy.
  Both families are captured by one iptables-restore each: raw before nat, each table at once.
  All rules are in chains whose names start with OUTRIDER_; nothing else is touched.
  It is safe to run again, also with other options: what is there becomes what is wanted.

LISTS
  Lists are separated by commas. Ports may be ranges (8000-8010). `*` stands for all; an empty
  value stands for none. What is excluded is so whatever is included.

NEEDS
  CAP_NET_ADMIN and CAP_NET_RAW in the pod's network namespace, any uid but the proxy's, and
  iptables (both its -nft and -legacy programs, if nodes of both kinds are to be served).
  `print` needs none of them.

EXIT CODES
  0  done; with `check`: everything that is to be captured is
  1  failed: the message names what is missing and what to do
  2  an option is wrong; nothing was changed
  3  `check` found a direction that is not captured
  4  another program held the lock of iptables, or another outrider-init ran, for all of
     --lock-timeout; run it again

EXAMPLES
  outrider-init                                    capture everything
  outrider-init --exclude-outbound-ports 5432      but connections to PostgreSQL
  OUTRIDER_IPV6=off outrider-init                  and refuse IPv6 rather than capture it
  outrider-init print --dns-capture                show the rules, change nothing
  outrider-init check                              prove that they work
  outrider-init clean                              take all of them away";

/// Redirects the traffic of one pod to its Outrider sidecar.
#[derive(Debug, Parser)]
#[command(name = "outrider-init", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    #[command(flatten)]
    pub(crate) capture: CaptureOptions,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum Verb {
    /// Install the redirects, or bring those that are there to what the options say (the default).
    Apply,
    /// Make one connection out and one in, for each family, and see that they are captured.
    ///
    /// Give it the options that `apply` was given. It makes a pair of interfaces for the time of
    /// the test, so no packet leaves the pod. It listens on the proxy's ports if they are free; if
    /// the proxy listens there, it reads the packet counters of the rules as well.
    Check,
    /// Write the rules that `apply` would install, with a comment on each. Changes nothing.
    Print,
    /// Remove every rule, chain and address that `apply` installed, in both backends.
    Clean,
}

/// What to capture.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is captured")]
pub(crate) struct CaptureOptions {
    /// User id of the proxy, whose own connections are let through. Run no app as it.
    #[arg(
        long,
        global = true,
        env = "OUTRIDER_PROXY_UID",
        default_value_t = 1337,
        value_name = "ID"
    )]
    proxy_uid: u32,
    /// Group id of the proxy, whose own connections are let through. Run no app as it.
    #[arg(
        long,
        global = true,
        env = "OUTRIDER_PROXY_GID",
        default_value_t = 1337,
        value_name = "ID"
    )]
    proxy_gid: u32,
    /// Port on which the proxy takes connections to the pod.
    #[arg(
        long, global = true, env = "OUTRIDER_INBOUND_PORT", default_value_t = 15006,
        value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..)
    )]
    inbound_port: u16,
    /// Port on which the proxy takes connections of the pod's programs.
    #[arg(
        long, global = true, env = "OUTRIDER_OUTBOUND_PORT", default_value_t = 15001,
        value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..)
    )]
    outbound_port: u16,
    /// Ports of the pod to capture: `*` or a list.
    #[arg(
        long, global = true, env = "OUTRIDER_INCLUDE_INBOUND_PORTS", default_value = "*",
        value_name = "PORTS", value_parser = include::<PortRange>
    )]
    include_inbound_ports: Include<PortRange>,
    /// Ports of the pod to leave alone, besides the proxy's own 15008, 15020, 15021 and 15090.
    #[arg(
        long, global = true, env = "OUTRIDER_EXCLUDE_INBOUND_PORTS", default_value = "",
        hide_default_value = true, value_name = "PORTS", value_parser = list::<PortRange>
    )]
    exclude_inbound_ports: List<PortRange>,
    /// Destination ports to capture even at addresses that --include-cidrs leaves out.
    #[arg(
        long, global = true, env = "OUTRIDER_INCLUDE_OUTBOUND_PORTS", default_value = "",
        hide_default_value = true, value_name = "PORTS", value_parser = list::<PortRange>
    )]
    include_outbound_ports: List<PortRange>,
    /// Destination ports to leave alone.
    #[arg(
        long, global = true, env = "OUTRIDER_EXCLUDE_OUTBOUND_PORTS", default_value = "",
        hide_default_value = true, value_name = "PORTS", value_parser = list::<PortRange>
    )]
    exclude_outbound_ports: List<PortRange>,
    /// Destinations to capture: `*`, or a list of CIDRs and addresses of either family. A list
    /// that names only one family leaves the other one's destinations alone.
    #[arg(
        long, global = true, env = "OUTRIDER_INCLUDE_CIDRS", default_value = "*",
        value_name = "CIDRS", value_parser = include::<Cidr>
    )]
    include_cidrs: Include<Cidr>,
    /// Destinations to leave alone (their DNS is captured all the same, if DNS is).
    #[arg(
        long, global = true, env = "OUTRIDER_EXCLUDE_CIDRS", default_value = "",
        hide_default_value = true, value_name = "CIDRS", value_parser = list::<Cidr>
    )]
    exclude_cidrs: List<Cidr>,
    /// Interfaces to leave alone in both directions (`net+` is all whose names start with net).
    #[arg(
        long, global = true, env = "OUTRIDER_EXCLUDE_INTERFACES", default_value = "",
        hide_default_value = true, value_name = "NAMES", value_parser = list::<Interface>
    )]
    exclude_interfaces: List<Interface>,
    /// Send DNS queries (UDP and TCP, port 53) to the proxy, except those to a resolver on
    /// loopback. The proxy must answer from 127.0.0.1 and ::1, not from the unspecified address.
    #[arg(
        long, global = true, env = "OUTRIDER_DNS_CAPTURE", value_name = "BOOL", num_args = 0..=1,
        require_equals = true, default_value_t = false, default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    dns_capture: bool,
    /// Port on which the proxy takes DNS queries.
    #[arg(
        long, global = true, env = "OUTRIDER_DNS_PORT", default_value_t = 15053,
        value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..)
    )]
    dns_port: u16,
    /// Drop inbound TCP packets that connection tracking finds invalid. A redirected connection
    /// is not found for such a packet, so without this the kernel would answer it with a reset.
    #[arg(
        long, global = true, env = "OUTRIDER_DROP_INVALID", value_name = "BOOL",
        default_value_t = true, action = clap::ArgAction::Set
    )]
    drop_invalid: bool,
    /// What to do with IPv6.
    #[arg(
        long,
        global = true,
        env = "OUTRIDER_IPV6",
        value_enum,
        default_value = "auto",
        value_name = "MODE"
    )]
    pub(crate) ipv6: Ipv6Mode,
}

/// How to go about it.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it is done")]
pub(crate) struct RunOptions {
    /// Which iptables to use: that of the node, detected, or one of its two kinds.
    #[arg(
        long,
        global = true,
        env = "OUTRIDER_BACKEND",
        value_enum,
        default_value = "auto",
        value_name = "KIND"
    )]
    pub(crate) backend: BackendChoice,
    /// How many seconds to wait for other programs that are changing rules.
    #[arg(
        long, global = true, env = "OUTRIDER_LOCK_TIMEOUT", default_value_t = 30,
        value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600)
    )]
    lock_timeout: u32,
}

impl RunOptions {
    pub(crate) fn lock_timeout(&self) -> Duration {
        Duration::from_secs(self.lock_timeout.into())
    }
}

/// What the user wants of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ipv6Mode {
    /// `on` where loopback has IPv6, `off` where it is disabled, nothing where the kernel has none
    Auto,
    /// Capture it; it is an error if the pod has none
    On,
    /// Refuse all TCP over it but loopback's and the proxy's, so that nothing bypasses the proxy
    Off,
}

/// Which iptables the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendChoice {
    /// The one that has rules in this namespace, else the one that the node's kernel is set up for
    Auto,
    /// The programs named iptables-nft
    Nft,
    /// The programs named iptables-legacy
    Legacy,
}

/// A comma-separated value. A type of its own, for clap takes a `Vec` as an option given often.
#[derive(Debug, Clone)]
struct List<T>(Vec<T>);

/// A CIDR, or an address, which stands for itself alone.
#[derive(Debug, Clone)]
struct Cidr(IpNet);

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| {
                format!("`{text}` is not a CIDR: write one like 10.0.0.0/8 or fd00::/8")
            })?,
        };
        Ok(Self(net.trunc()))
    }
}

fn list<T: std::str::FromStr<Err = String>>(text: &str) -> Result<List<T>, String> {
    if text.trim().is_empty() {
        return Ok(List(Vec::new()));
    }
    let items = text.split(',').map(|item| match item.trim() {
        "*" => Err("`*` cannot be in a list: it stands alone, for all".to_owned()),
        item => item.parse(),
    });
    items.collect::<Result<_, _>>().map(List)
}

fn include<T: std::str::FromStr<Err = String>>(text: &str) -> Result<Include<T>, String> {
    match text.trim() {
        "*" => Ok(Include::All),
        text => list(text).map(|List(items)| Include::Only(items)),
    }
}

impl CaptureOptions {
    /// The configuration, with IPv6 as it was settled.
    ///
    /// # Errors
    /// Options that contradict each other, named.
    pub(crate) fn config(&self, ipv6: Ipv6) -> Result<Config, String> {
        // Every process of root, and every socket of the kernel's, would bypass the mesh.
        for (option, id) in [
            ("--proxy-uid", self.proxy_uid),
            ("--proxy-gid", self.proxy_gid),
        ] {
            if id == 0 {
                return Err(format!(
                    "{option} 0 would let every program of root bypass the proxy: \
                     run the proxy as a user of its own (1337)"
                ));
            }
        }
        let mut ports = vec![
            ("--inbound-port", self.inbound_port),
            ("--outbound-port", self.outbound_port),
        ];
        if self.dns_capture {
            ports.push(("--dns-port", self.dns_port));
        }
        for (index, (option, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..index].iter().find(|(_, taken)| taken == port) {
                return Err(format!(
                    "{other} and {option} are both {port}: they must differ"
                ));
            }
            if crate::config::PROXY_SERVICE_PORTS.contains(port) {
                return Err(format!(
                    "{option} {port} is a port that is never captured: choose another"
                ));
            }
        }
        let dns = crate::config::DNS_PORT;
        if self.dns_capture
            && self
                .exclude_outbound_ports
                .0
                .iter()
                .any(|range| range.contains(dns))
        {
            return Err(format!(
                "--dns-capture is on and --exclude-outbound-ports has {dns}: leave one of them out"
            ));
        }
        let nets = |list: &[Cidr]| list.iter().map(|cidr| cidr.0).collect();
        Ok(Config {
            proxy_uid: self.proxy_uid,
            proxy_gid: self.proxy_gid,
            inbound_port: self.inbound_port,
            outbound_port: self.outbound_port,
            dns_port: self.dns_capture.then_some(self.dns_port),
            include_inbound_ports: self.include_inbound_ports.clone(),
            exclude_inbound_ports: self.exclude_inbound_ports.0.clone(),
            include_outbound_ports: self.include_outbound_ports.0.clone(),
            exclude_outbound_ports: self.exclude_outbound_ports.0.clone(),
            include_cidrs: match &self.include_cidrs {
                Include::All => Include::All,
                Include::Only(list) => Include::Only(nets(list)),
            },
            exclude_cidrs: nets(&self.exclude_cidrs.0),
            exclude_interfaces: self.exclude_interfaces.0.clone(),
            drop_invalid: self.drop_invalid,
            ipv6,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, String> {
        let all = std::iter::once("outrider-init").chain(arguments.iter().copied());
        let options = Options::try_parse_from(all).map_err(|error| error.to_string())?;
        options.capture.config(Ipv6::Capture)
    }

    #[test]
    fn no_option_means_the_standard_and_all_are_read() {
        Options::command().debug_assert();
        assert_eq!(config(&[]).unwrap(), crate::config::tests::standard());
        let config = config(&[
            "print",
            "--proxy-uid=7",
            "--include-inbound-ports=80,90-91",
            "--exclude-outbound-ports=5432",
            "--include-cidrs=10.1.2.3/8, fd00::1",
            "--exclude-interfaces=net1,eth+",
            "--dns-capture",
            "--drop-invalid=false",
        ])
        .unwrap();
        assert_eq!(config.proxy_uid, 7);
        assert_eq!(config.dns_port, Some(15053));
        assert!(!config.drop_invalid);
        assert_eq!(
            config.include_cidrs,
            Include::Only(vec![
                "10.0.0.0/8".parse().unwrap(),
                "fd00::1/128".parse().unwrap()
            ])
        );
        assert_eq!(config.exclude_interfaces.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (arguments, named) in [
            (&["--proxy-uid=0"][..], "--proxy-uid 0"),
            (&["--inbound-port=15001"], "--outbound-port"),
            (&["--inbound-port=0"], "--inbound-port"),
            (&["--outbound-port=15021"], "15021"),
            (
                &["--dns-capture", "--exclude-outbound-ports=50-60"],
                "--dns-capture",
            ),
            (&["--exclude-inbound-ports=http"], "`http` is not a port"),
            (&["--exclude-inbound-ports=*"], "`*` cannot be in a list"),
            (&["--include-cidrs=*,10.0.0.0/8"], "`*` cannot be in a list"),
            (&["--include-cidrs=10.0.0.0/33"], "10.0.0.0/33"),
            (&["--exclude-interfaces=+"], "every interface"),
            (&["--ipv6=maybe"], "--ipv6"),
            (&["--lock-timeout=0"], "--lock-timeout"),
        ] {
            let error = config(arguments).unwrap_err();
            assert!(error.contains(named), "{arguments:?}: {error}");
        }
    }
}
