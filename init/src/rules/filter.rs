//! What is dropped, and what is refused where IPv6 is off.

use super::{Chain, Jump, Rules, Table, TableName, owners};
use crate::config::{Config, PROXY_SERVICE_PORTS};

pub(super) const INVALID: &str = "OUTRIDER_INVALID";
pub(super) const REFUSE_ARRIVING: &str = "OUTRIDER_REFUSE_ARRIVING";
pub(super) const REFUSE_LEAVING: &str = "OUTRIDER_REFUSE_LEAVING";

/// Nothing, if invalid packets are not to be dropped.
pub(super) fn drop_invalid(config: &Config) -> Option<Table> {
    config.drop_invalid.then(|| Table {
        name: TableName::Filter,
        chains: vec![invalid()],
    })
}

fn invalid() -> Chain {
    let mut rules = Rules::default();
    rules.add(
        "-p tcp -m conntrack --ctstate INVALID -j DROP",
        "Not translated, so the kernel would reset the connection; the sender tries again instead",
    );
    Chain {
        name: INVALID,
        comment: "Packets that belong to no connection that is known",
        jump: Some(Jump {
            from: "INPUT",
            matches: "-p tcp ",
        }),
        rules: rules.0,
    }
}

/// IPv6 that is not captured must not be a way around the proxy.
pub(super) fn refuse(config: &Config) -> Table {
    let established = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN";
    let reset = "-p tcp -j REJECT --reject-with tcp-reset";
    let mut arriving = Rules::default();
    arriving.add("-i lo -j RETURN", "Loopback stays");
    arriving.add(
        established,
        "Answers to what the proxy sent, for nobody else gets to send anything",
    );
    for port in PROXY_SERVICE_PORTS {
        arriving.add(
            format!("-p tcp -m tcp --dport {port} -j RETURN"),
            "The proxy serves this port itself",
        );
    }
    arriving.add(reset, "Everything else is refused at once");
    let mut leaving = Rules::default();
    leaving.add("-o lo -j RETURN", "Loopback stays");
    for (word, owner) in owners(config) {
        leaving.add(
            format!("-m owner {owner} -j RETURN"),
            format!("The proxy's own connections ({word})"),
        );
    }
    leaving.add(
        established,
        "The last packets of the proxy's connections, which have no owner any more",
    );
    leaving.add(reset, "Everything else is refused at once");
    let chain = |name, comment, from, rules: Rules| Chain {
        name,
        comment,
        jump: Some(Jump {
            from,
            matches: "-p tcp ",
        }),
        rules: rules.0,
    };
    Table {
        name: TableName::Filter,
        chains: vec![
            chain(
                REFUSE_ARRIVING,
                "IPv6 is off: connections from outside",
                "INPUT",
                arriving,
            ),
            chain(
                REFUSE_LEAVING,
                "IPv6 is off: connections that are made in the pod",
                "OUTPUT",
                leaving,
            ),
        ],
    }
}
