//! Which host runs how many ranks.
//!
//! Hosts are filled in their order, as mpirun does: rank 0 is on the first, and ranks on a host are consecutive.

use anyhow::Result;

use crate::hosts::Host;
use biodist_process::exit::Exit;

/// A host and the number of processes that run on it, or may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub host: String,
    pub count: usize,
}

/// `hosts`, with as many processes as `default` says of a host where the number is not given.
pub fn slots(hosts: &[Host], default: impl Fn(&str) -> usize) -> Vec<Share> {
    hosts.iter().map(|host| Share { host: host.name.clone(), count: host.slots.unwrap_or_else(|| default(&host.name)) }).collect()
}

pub fn total(shares: &[Share]) -> usize {
    shares.iter().map(|share| share.count).sum()
}

/// `ranks` ranks on `slots`; every slot is taken where `ranks` is not given.
///
/// # Errors
/// No rank at all, or more than slots.
pub fn place(slots: &[Share], ranks: Option<usize>) -> Result<Vec<Share>> {
    let available = total(slots);
    let ranks = ranks.unwrap_or(available);
    if ranks == 0 {
        return Err(Exit::Usage.error("--ranks is 0; give 1 or more"));
    }
    if ranks > available {
        let hosts = if slots.len() == 1 { "the host has" } else { "the hosts have" };
        return Err(Exit::Usage.error(format!(
            "{ranks} ranks were asked for, but {hosts} {available} slots; ask for fewer ranks or give the hosts more slots"
        )));
    }
    let mut left = ranks;
    let shares = slots.iter().map(|slot| {
        let count = slot.count.min(left);
        left -= count;
        Share { host: slot.host.clone(), count }
    });
    Ok(shares.filter(|share| share.count > 0).collect())
}

/// The largest number of ranks, at most `most`, that divides the global batch.
pub fn largest_divisor(batch_size: usize, most: usize) -> Option<usize> {
    (1..=most.min(batch_size)).rev().find(|ranks| batch_size.is_multiple_of(*ranks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(list: &[(&str, usize)]) -> Vec<Share> {
        list.iter().map(|&(host, count)| Share { host: host.to_owned(), count }).collect()
    }

    #[test]
    fn hosts_are_filled_in_order() {
        let slots = shares(&[("a", 4), ("b", 2), ("c", 2)]);
        assert_eq!(place(&slots, None).unwrap(), slots);
        assert_eq!(place(&slots, Some(5)).unwrap(), shares(&[("a", 4), ("b", 1)]));
        assert_eq!(place(&slots, Some(1)).unwrap(), shares(&[("a", 1)]));
    }

    #[test]
    fn ranks_must_fit() {
        let slots = shares(&[("a", 4), ("b", 4)]);
        assert!(place(&slots, Some(0)).is_err());
        let error = place(&slots, Some(9)).unwrap_err().to_string();
        assert!(error.contains("9 ranks") && error.contains("8 slots"), "{error}");
    }

    #[test]
    fn slots_not_given_take_the_default() {
        let hosts = [Host { name: "a".to_owned(), slots: None }, Host { name: "b".to_owned(), slots: Some(1) }];
        assert_eq!(slots(&hosts, |_| 8), shares(&[("a", 8), ("b", 1)]));
    }

    #[test]
    fn the_ranks_that_remain_divide_the_batch() {
        assert_eq!(largest_divisor(256, 8), Some(8));
        assert_eq!(largest_divisor(256, 7), Some(4));
        assert_eq!(largest_divisor(96, 7), Some(6));
        assert_eq!(largest_divisor(127, 64), Some(1));
        assert_eq!(largest_divisor(4, 100), Some(4));
        assert_eq!(largest_divisor(4, 0), None);
    }
}
