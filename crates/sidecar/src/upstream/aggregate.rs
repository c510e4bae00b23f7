//! A cluster of clusters: the priorities of its members, one after the other.
//!
//! As in Envoy it only says which member and which of its priorities a request goes to; the member
//! chooses the endpoint, and counts.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::cluster::Cluster;
use super::clusters::Directory;
use super::lb::{Level, Tier, divide};
use crate::config::cluster::LoadBalancing;

/// The members as they were last seen, and what each of their priorities gets.
pub struct Aggregate {
    directory: Weak<Directory>,
    /// As it was when the shares were made.
    seen: Vec<Seen>,
    shares: Vec<Share>,
}

/// A member, with the number of its endpoints' version.
type Seen = (Weak<Cluster>, u64);

struct Share {
    /// The sum of the percentages up to and with this one.
    upto: u32,
    member: usize,
    tier: Tier,
}

impl Aggregate {
    /// Finds members there.
    pub fn new(directory: Weak<Directory>) -> Self {
        Aggregate {
            directory,
            seen: Vec::new(),
            shares: Vec::new(),
        }
    }

    /// The member for one request and what of it is to be used; `None` if there is no endpoint.
    pub fn choose(
        &mut self,
        names: &[Arc<str>],
        config: &LoadBalancing,
        random: &RefCell<SmallRng>,
    ) -> Option<(Rc<Cluster>, Tier)> {
        let directory = self.directory.upgrade()?;
        let members = || names.iter().filter_map(|name| directory.cluster(name));
        let mut seen = self.seen.iter();
        let same = members().all(|member| {
            seen.next().is_some_and(|(known, generation)| {
                known.as_ptr() == Rc::as_ptr(&member) && *generation == member.generation()
            })
        });
        if !same || seen.next().is_some() {
            let members: Vec<_> = members().collect();
            self.shares = shares(&members, config);
            let seen = |member: &Rc<Cluster>| (Rc::downgrade(member), member.generation());
            self.seen = members.iter().map(seen).collect();
        }
        let share = match self.shares.len() {
            0 => return None,
            1 => &self.shares[0],
            _ => {
                let dice = random.borrow_mut().random_range(0..100);
                let at = self.shares.partition_point(|share| share.upto <= dice);
                self.shares.get(at)?
            }
        };
        let (member, _) = self.seen.get(share.member)?;
        Some((member.upgrade()?, share.tier))
    }
}

fn shares(members: &[Rc<Cluster>], config: &LoadBalancing) -> Vec<Share> {
    let mut levels = Vec::new();
    let mut places = Vec::new();
    for (member, cluster) in members.iter().enumerate() {
        let of_member: Vec<Level> = cluster.levels();
        let used = (0..).zip(of_member).filter(|(_, level)| level.total > 0);
        for (priority, level) in used {
            levels.push(level);
            places.push((member, priority));
        }
    }
    let mut upto = 0;
    let shares = divide(&levels, config.panic_threshold).into_iter();
    let shares = shares.map(|(level, degraded, percent)| {
        upto += percent;
        let (member, priority) = places[level];
        Share {
            upto,
            member,
            tier: Tier { priority, degraded },
        }
    });
    shares.collect()
}
