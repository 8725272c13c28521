//! Small collectives of bytes and names, beside training.

use super::Transport;
use crate::host;

/// Every rank's bytes, of any lengths, by rank. Collective.
pub fn gather_bytes(own: &[u8], transport: &dyn Transport) -> Vec<Vec<u8>> {
    let lengths: Vec<usize> = transport.all_gather_words(&[own.len() as u64]).into_iter().map(|length| length as usize).collect();
    let words = lengths.iter().copied().max().unwrap_or(0).div_ceil(8);
    let mut padded = own.to_vec();
    padded.resize(8 * words, 0);
    let own: Vec<u64> = padded.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect();
    let all = transport.all_gather_words(&own);
    let bytes = |(rank, length): (usize, &usize)| {
        let mut bytes: Vec<u8> = all[rank * words..][..words].iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(*length);
        bytes
    };
    lengths.iter().enumerate().map(bytes).collect()
}

/// Every rank's host name, by rank. Collective.
pub fn host_names(transport: &dyn Transport) -> Vec<String> {
    let names = gather_bytes(host::name().as_bytes(), transport);
    names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}
