//! The addresses over which hosts talk to each other.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context, Result};

/// Addresses of a host that travel to rank 0.
pub const TOLD: usize = 16;

/// The IPv4 addresses of this host's interfaces, the loopback's last.
pub fn own() -> Result<Vec<Ipv4Addr>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    let mut addresses = Vec::new();
    // SAFETY: the list is walked as its manual says, and freed once.
    unsafe {
        if libc::getifaddrs(&mut first) != 0 {
            return Err(std::io::Error::last_os_error()).context("this host's addresses cannot be listed");
        }
        let mut entry = first;
        while let Some(interface) = entry.as_ref() {
            if let Some(address) = interface.ifa_addr.as_ref()
                && i32::from(address.sa_family) == libc::AF_INET
            {
                let address = &*interface.ifa_addr.cast::<libc::sockaddr_in>();
                addresses.push(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)));
            }
            entry = interface.ifa_next;
        }
        libc::freeifaddrs(first);
    }
    addresses.sort_by_key(Ipv4Addr::is_loopback);
    Ok(addresses)
}

/// Those of `own` from which the system would send to other hosts, whose ranks have told their addresses in words. What both have, such as
/// a bridge for containers, leads to no other host. The loopback's where all ranks have this host's addresses; none where some told none.
pub fn towards(own: &[Ipv4Addr], told: &[u64]) -> Vec<Ipv4Addr> {
    let ranks: Vec<Vec<Ipv4Addr>> = told.chunks(TOLD).map(of_words).collect();
    if ranks.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    let elsewhere: Vec<Ipv4Addr> = ranks.into_iter().flatten().filter(|address| !address.is_loopback() && !own.contains(address)).collect();
    if elsewhere.is_empty() {
        return vec![Ipv4Addr::LOCALHOST];
    }
    let from = elsewhere.into_iter().filter_map(|address| {
        // Sends nothing: the system only chooses the way.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((address, 9)).ok()?;
        match socket.local_addr().ok()?.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    });
    let used: Vec<Ipv4Addr> = from.collect();
    own.iter().copied().filter(|address| !address.is_loopback() && used.contains(address)).collect()
}

/// Addresses in words of which no address is 0.
pub fn to_words(addresses: &[Ipv4Addr]) -> [u64; TOLD] {
    let mut words = [0; TOLD];
    words.iter_mut().zip(addresses).for_each(|(word, address)| *word = u64::from(address.to_bits()));
    words
}

fn of_words(words: &[u64]) -> Vec<Ipv4Addr> {
    words.iter().filter(|word| **word > 0).map(|word| Ipv4Addr::from_bits(*word as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_another_host_leaves_out_the_others() {
        let own = own().unwrap();
        assert!(own.last().is_some_and(Ipv4Addr::is_loopback), "{own:?}");
        assert_eq!(of_words(&to_words(&own)), own[..own.len().min(TOLD)]);
        // Ranks in two containers of one host, one that could not tell, and one at an address set apart for documentation, which is
        // reached by the default route, where there is one.
        assert_eq!(towards(&own, &[to_words(&own), to_words(&own)].concat()), [Ipv4Addr::LOCALHOST]);
        assert!(towards(&own, &[to_words(&own), to_words(&[])].concat()).is_empty());
        let out = towards(&own, &[to_words(&own), to_words(&[Ipv4Addr::new(203, 0, 113, 200)])].concat());
        assert!(out.len() <= 1 && out.iter().all(|address| own.contains(address) && !address.is_loopback()), "{out:?}");
    }
}
