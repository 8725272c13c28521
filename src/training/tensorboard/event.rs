//! The few messages of TensorFlow's `event.proto` and `summary.proto` that scalars need, in the wire format of protocol buffers.

/// Version of the files' format; TensorBoard acts on the start of a session from this one on.
const FILE_VERSION: &str = "brain.Event:2";
/// `SessionLog.SessionStatus.START`.
const START: u64 = 1;

/// How a field's value is laid out; the numbers are the format's.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

/// The first event of a file.
pub fn file_version(wall_time: f64) -> Vec<u8> {
    let mut event = begin(wall_time, 0);
    bytes_field(&mut event, 3, FILE_VERSION.as_bytes());
    event
}

/// The mark at which TensorBoard drops what earlier files have from `step` on.
pub fn session_start(wall_time: f64, step: i64) -> Vec<u8> {
    let mut log = Vec::new();
    varint_field(&mut log, 1, START);
    let mut event = begin(wall_time, step);
    bytes_field(&mut event, 7, &log);
    event
}

/// Scalars, each with its tag, after `step` steps.
pub fn scalars(wall_time: f64, step: i64, values: &[(String, f32)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, number) in values {
        let mut value = Vec::new();
        bytes_field(&mut value, 1, tag.as_bytes());
        key(&mut value, 2, FIXED_32);
        value.extend_from_slice(&number.to_le_bytes());
        bytes_field(&mut summary, 1, &value);
    }
    let mut event = begin(wall_time, step);
    bytes_field(&mut event, 5, &summary);
    event
}

/// A hyperparameter's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    Number(f64),
    Text(String),
    Switch(bool),
}

/// What a run was trained with, for the page that compares runs by their hyperparameters. Its messages are those of the plug-in `hparams`:
/// a tensor without a value, whose description holds a `SessionStartInfo`.
pub fn settings(wall_time: f64, settings: &[(String, Setting)]) -> Vec<u8> {
    let mut info = Vec::new();
    for (name, setting) in settings {
        let mut value = Vec::new();
        match setting {
            Setting::Number(number) => {
                key(&mut value, 2, FIXED_64);
                value.extend_from_slice(&number.to_le_bytes());
            }
            Setting::Text(text) => bytes_field(&mut value, 3, text.as_bytes()),
            Setting::Switch(on) => varint_field(&mut value, 4, u64::from(*on)),
        }
        let mut entry = Vec::new();
        bytes_field(&mut entry, 1, name.as_bytes());
        bytes_field(&mut entry, 2, &value);
        bytes_field(&mut info, 1, &entry);
    }
    key(&mut info, 5, FIXED_64);
    info.extend_from_slice(&wall_time.to_le_bytes());
    let nested = |field: u64, bytes: &[u8]| {
        let mut message = Vec::new();
        bytes_field(&mut message, field, bytes);
        message
    };
    let mut plugin = nested(1, b"hparams");
    bytes_field(&mut plugin, 2, &nested(3, &info));
    let mut value = nested(1, b"_hparams_/session_start_info");
    bytes_field(&mut value, 8, NO_VALUE);
    bytes_field(&mut value, 9, &nested(1, &plugin));
    let mut event = begin(wall_time, 0);
    bytes_field(&mut event, 5, &nested(1, &value));
    event
}

/// A tensor of floats with one dimension of no length.
const NO_VALUE: &[u8] = b"\x08\x01\x12\x02\x12\x00";

fn begin(wall_time: f64, step: i64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, FIXED_64);
    event.extend_from_slice(&wall_time.to_le_bytes());
    // A field of the default value is left out.
    if step != 0 {
        varint_field(&mut event, 2, step as u64);
    }
    event
}

fn key(into: &mut Vec<u8>, field: u64, kind: u64) {
    varint(into, field << 3 | kind);
}

fn varint_field(into: &mut Vec<u8>, field: u64, value: u64) {
    key(into, field, VARINT);
    varint(into, value);
}

fn bytes_field(into: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(into, field, LENGTH_DELIMITED);
    varint(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_protocol_buffers_encode_them() {
        // By the protocol buffers of TensorBoard's Python package.
        let event = scalars(1.5, 300, &[("train/loss".into(), 0.25)]);
        let expected = b"\x09\0\0\0\0\0\0\xf8?\x10\xac\x02*\x13\n\x11\n\ntrain/loss\x15\0\0\x80>";
        assert_eq!(event, expected);
        assert_eq!(session_start(1.5, 301), b"\x09\0\0\0\0\0\0\xf8?\x10\xad\x02:\x02\x08\x01");
        let settings = settings(
            5.0,
            &[("b".into(), Setting::Text("x".into())), ("a".into(), Setting::Number(0.5)), ("c".into(), Setting::Switch(true))],
        );
        let expected =
            b"\x09\0\0\0\0\0\0\x14@*e\nc\n\x1c_hparams_/session_start_infoB\x06\x08\x01\x12\x02\x12\0J;\n9\n\x07hparams\x12.\x1a,\
            \n\x08\n\x01b\x12\x03\x1a\x01x\n\x0e\n\x01a\x12\t\x11\0\0\0\0\0\0\xe0?\n\x07\n\x01c\x12\x02 \x01)\0\0\0\0\0\0\x14@";
        assert_eq!(settings, expected);
        assert_eq!(file_version(1.5), b"\x09\0\0\0\0\0\0\xf8?\x1a\rbrain.Event:2");
    }
}
