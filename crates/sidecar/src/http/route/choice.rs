//! Which cluster a route sends a request to.

use std::sync::Arc;

use crate::config::route::{
    ClusterChoice, Forward, RandomSource, ShareCluster, WeightedCluster, WeightedClusters,
};
use crate::http::message::RequestHead;

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub enum ChosenCluster<'f, 'r> {
    /// By configuration.
    Configured {
        /// The cluster.
        name: &'f Arc<str>,
        /// Its share, if it was chosen by weight.
        share: Option<&'f WeightedCluster>,
    },
    /// By `cluster_header`.
    Requested {
        /// The cluster.
        name: &'r str,
        /// Its share, if it was chosen by weight.
        share: Option<&'f WeightedCluster>,
    },
}

impl<'f> ChosenCluster<'f, '_> {
    /// The cluster's name.
    pub fn name(&self) -> &str {
        match self {
            ChosenCluster::Configured { name, .. } => name,
            ChosenCluster::Requested { name, .. } => name,
        }
    }

    /// Its share, if it was chosen by weight.
    pub fn share(&self) -> Option<&'f WeightedCluster> {
        match self {
            ChosenCluster::Configured { share, .. } | ChosenCluster::Requested { share, .. } => {
                *share
            }
        }
    }
}

impl Forward {
    /// The cluster that this request goes to, and what else its share has. `None` where a
    /// header should name the cluster and does not, which is answered as an unknown cluster is.
    /// `hash` is what the route's hash policies make of the request.
    pub fn choose_cluster<'f, 'r>(
        &'f self,
        request: &'r RequestHead,
        random: u64,
        hash: impl FnOnce() -> Option<u64>,
    ) -> Option<ChosenCluster<'f, 'r>> {
        match &self.cluster {
            ClusterChoice::Named(name) => Some(ChosenCluster::Configured { name, share: None }),
            ClusterChoice::Weighted(weighted) => {
                let chosen = match &weighted.random {
                    RandomSource::Own => None,
                    RandomSource::Header(name) => number_in(request, name),
                    RandomSource::Hash => hash(),
                };
                let share = weighted.choose(chosen.unwrap_or(random))?;
                match &share.cluster {
                    ShareCluster::Named(name) => Some(ChosenCluster::Configured {
                        name,
                        share: Some(share),
                    }),
                    ShareCluster::Header(header) => {
                        named_in(request, header).map(|name| ChosenCluster::Requested {
                            name,
                            share: Some(share),
                        })
                    }
                }
            }
            ClusterChoice::Header(header) => {
                named_in(request, header).map(|name| ChosenCluster::Requested { name, share: None })
            }
        }
    }
}

impl WeightedClusters {
    /// The share into which a number falls. The weights are those of this moment, for the runtime
    /// may change them.
    fn choose(&self, random: u64) -> Option<&WeightedCluster> {
        let total: u64 = self
            .parts
            .iter()
            .map(|part| u64::from(part.weight.get()))
            .sum();
        let mut at = random.checked_rem(total)?;
        self.parts.iter().find(|part| {
            let weight = u64::from(part.weight.get());
            let found = at < weight;
            at = at.wrapping_sub(weight);
            found
        })
    }
}

/// The one number that a header holds. Several values are none: proxies on the way might take
/// different ones.
fn number_in(request: &RequestHead, name: &[u8]) -> Option<u64> {
    let mut values = request.headers.named(name);
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

fn named_in<'r>(request: &'r RequestHead, header: &[u8]) -> Option<&'r str> {
    let value = request.headers.named(header).next()?;
    std::str::from_utf8(value)
        .ok()
        .filter(|value| !value.is_empty())
}
