//! Which cluster a route sends a request to.

use std::sync::Arc;

use crate::config::route::{
    ClusterChoice, Forward, RandomSource, ShareCluster, WeightedCluster, WeightedClusters,
};
use crate::http::message::RequestHead;
use crate::matching::RequestInputs;

/// Where a request goes, said without borrowing from its route or its head.
#[derive(Debug)]
pub enum Chosen {
    /// To the one cluster that the route names.
    Only,
    /// To the cluster of this share.
    Share(usize),
    /// To a cluster that a header or a plugin has named, by this share if there are shares.
    Named {
        /// The cluster.
        name: Arc<str>,
        /// Its share, if it was chosen by weight.
        share: Option<usize>,
    },
    /// Nowhere: nothing names a cluster. It is answered as an unknown cluster is.
    Nowhere,
}

impl Forward {
    /// The cluster that this request goes to. `hash` is what the route's hash policies make of the
    /// request.
    pub fn choose(
        &self,
        request: &RequestHead,
        random: u64,
        hash: impl FnOnce() -> Option<u64>,
    ) -> Chosen {
        let by_header = |header: &[u8], share| match named_in(request, header) {
            Some(name) => Chosen::Named {
                name: name.into(),
                share,
            },
            None => Chosen::Nowhere,
        };
        match &self.cluster {
            ClusterChoice::Named(_) => Chosen::Only,
            ClusterChoice::Weighted(weighted) => {
                let chosen = match &weighted.random {
                    RandomSource::Own => None,
                    RandomSource::Header(name) => number_in(request, name),
                    RandomSource::Hash => hash(),
                };
                let Some(at) = weighted.choose(chosen.unwrap_or(random)) else {
                    return Chosen::Nowhere;
                };
                match &weighted.parts[at].cluster {
                    ShareCluster::Named(_) => Chosen::Share(at),
                    ShareCluster::Header(header) => by_header(header, Some(at)),
                }
            }
            ClusterChoice::Header(header) => by_header(header, None),
            ClusterChoice::Matched(tree) => match tree.find(&RequestInputs(request)) {
                Some(name) => Chosen::Named {
                    name: name.clone(),
                    share: None,
                },
                None => Chosen::Nowhere,
            },
        }
    }

    /// The name of the cluster that was chosen.
    pub fn cluster_of<'a>(&'a self, chosen: &'a Chosen) -> Option<&'a str> {
        match (chosen, &self.cluster) {
            (Chosen::Named { name, .. }, _) => Some(name),
            (Chosen::Only, ClusterChoice::Named(name)) => Some(name),
            (Chosen::Share(_), _) => match &self.share_of(chosen)?.cluster {
                ShareCluster::Named(name) => Some(name),
                ShareCluster::Header(_) => None,
            },
            _ => None,
        }
    }

    /// The share that was chosen, if there are shares.
    pub fn share_of(&self, chosen: &Chosen) -> Option<&WeightedCluster> {
        let at = match chosen {
            Chosen::Share(at) => *at,
            Chosen::Named { share, .. } => (*share)?,
            Chosen::Only | Chosen::Nowhere => return None,
        };
        match &self.cluster {
            ClusterChoice::Weighted(weighted) => weighted.parts.get(at),
            _ => None,
        }
    }
}

impl WeightedClusters {
    /// The share into which a number falls. The weights are those of this moment, for the runtime
    /// may change them.
    fn choose(&self, random: u64) -> Option<usize> {
        let total: u64 = self
            .parts
            .iter()
            .map(|part| u64::from(part.weight.get()))
            .sum();
        let mut at = random.checked_rem(total)?;
        self.parts.iter().position(|part| {
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
