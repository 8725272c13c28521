//! The framing of event files: TFRecord, a length and a message, each under a masked CRC-32C.

/// What is added to a rotated checksum, so that the checksum of bytes that hold checksums is a sound one.
const MASK: u32 = 0xa282_ead8;

/// `message` as a record: length (u64), its checksum, the message, its checksum; little-endian.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(message.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
    record.extend_from_slice(message);
    record.extend_from_slice(&masked_crc32c(message).to_le_bytes());
    record
}

fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32C by its definition, bit by bit: polynomial 0x1EDC6F41, reflected.
    fn crc32c_by_bits(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
        })
    }

    #[test]
    fn checksums_are_those_of_known_vectors() {
        // RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
        let ascending: Vec<u8> = (0..32).collect();
        for (bytes, crc) in
            [(&[0u8; 32][..], 0x8a91_36aa), (&[0xff; 32], 0x62a8_ab43), (&ascending, 0x46dd_794e), (b"123456789", 0xe306_9283)]
        {
            assert_eq!((crc32c::crc32c(bytes), crc32c_by_bits(bytes)), (crc, crc));
        }
    }

    #[test]
    fn a_record_is_what_tensorboard_writes() {
        // By the RecordWriter of TensorBoard's Python package.
        let message = b"\x1a\rbrain.Event:2";
        let expected = b"\x0f\0\0\0\0\0\0\0mS+\t\x1a\rbrain.Event:2\xfc\x98Q)";
        assert_eq!(framed(message), expected);
        let crc = u32::from_le_bytes(expected[expected.len() - 4..].try_into().unwrap()).wrapping_sub(MASK);
        assert_eq!(crc.rotate_left(15), crc32c_by_bits(message));
    }
}
