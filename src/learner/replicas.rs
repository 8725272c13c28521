//! Proof that all ranks have the same parameters.

use anyhow::Result;

use crate::exchange::{self, Transport};
use crate::exit::Exit;

/// The checksum that all ranks have in common; an error of [`Exit::Stalled`] that names those that differ. Collective.
pub fn compare(own: u64, step: u64, transport: &dyn Transport) -> Result<u64> {
    let checksums = transport.all_gather_words(&[own]);
    let apart = outliers(&checksums);
    if apart.is_empty() {
        return Ok(own);
    }
    let hosts = exchange::host_names(transport);
    let named: Vec<String> = apart.iter().map(|rank| format!("{rank} (on {})", hosts[*rank])).collect();
    let (noun, verb) = if apart.len() == 1 { ("rank", "has") } else { ("ranks", "have") };
    Err(Exit::Stalled.error(format!(
        "replicas differ after step {step}: {noun} {} {verb} other parameters than the rest. Memory or a network card may be faulty; \
         --resume goes on from the last checkpoint, where all agreed",
        named.join(", ")
    )))
}

/// Ranks whose checksum is not that of most ranks; of equally many, rank 0's side is right.
fn outliers(checksums: &[u64]) -> Vec<usize> {
    let votes = |checksum: u64| checksums.iter().filter(|other| **other == checksum).count();
    // Of equals max_by_key takes the last, which reversed is the first.
    let right = checksums.iter().rev().copied().max_by_key(|checksum| votes(*checksum));
    (0..checksums.len()).filter(|rank| Some(checksums[*rank]) != right).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minority_differs() {
        assert_eq!(outliers(&[7, 7, 7]), [] as [usize; 0]);
        assert_eq!(outliers(&[7, 7, 8, 7]), [2]);
        assert_eq!(outliers(&[8, 7, 7, 7]), [0]);
        assert_eq!(outliers(&[7, 8]), [1]);
        assert_eq!(outliers(&[7, 8, 9, 8]), [0, 2]);
    }
}
