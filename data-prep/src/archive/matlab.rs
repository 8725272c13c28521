//! MATLAB's level 5 MAT-files, as far as ImageNet's `meta.mat` needs them: numbers, text, cells and structs, little-endian,
//! compressed or not. After "MAT-File Format" (The MathWorks), chapter 1.
//!
//! The file is a header of 128 bytes and then elements: a tag (type and length) with its data, padded to multiples of 8
//! bytes, where up to four bytes of data may lie in the tag itself. A matrix is an element that consists of elements.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::ZlibDecoder;

const HEADER: usize = 128;
/// More bytes than any such file unpacks to. Values take up to twenty times as many.
const MAX_UNPACKED: u64 = 16 << 20;
const MAX_DEPTH: usize = 16;
const MAX_DIMENSIONS: usize = 32;

// Types of elements.
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// Class of an array without parts; no class in a file has it.
const EMPTY: u8 = 0;

/// A MATLAB array.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Numbers(Vec<f64>),
    Text(String),
    Cells(Vec<Value>),
    /// Field names, and for each struct of the array the fields' values.
    Structs(Vec<String>, Vec<Vec<Value>>),
    /// Of a class that is not read.
    Other,
}

impl Value {
    /// The single number that it holds.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Numbers(numbers) if numbers.len() == 1 => Some(numbers[0]),
            _ => None,
        }
    }

    /// The text that it holds.
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }
}

/// The variable `name` of a MAT-file, where it has one. The others are passed over.
///
/// # Errors
/// Where it is no MAT-file of this kind, damaged up to that variable, or unpacks to too much.
pub fn variable(bytes: &[u8], name: &str) -> Result<Option<Value>> {
    ensure!(bytes.starts_with(b"MATLAB 5.0 MAT-file"), "it is no MAT-file of level 5");
    ensure!(bytes.len() >= HEADER && &bytes[126..128] == b"IM", "it is cut off or has the other byte order");
    let mut rest = &bytes[HEADER..];
    // For all variables together: each by itself may be a small part of the file.
    let mut left = MAX_UNPACKED;
    while !rest.is_empty() {
        let element = Element::take(&mut rest)?;
        let mut unpacked = Vec::new();
        let matrix = match element.kind {
            COMPRESSED => {
                ZlibDecoder::new(element.data).take(left + 1).read_to_end(&mut unpacked).context("it cannot be unpacked")?;
                left = left.checked_sub(unpacked.len() as u64).with_context(|| format!("it unpacks to more than {MAX_UNPACKED} bytes"))?;
                let inner = Element::take(&mut &unpacked[..])?;
                ensure!(inner.kind == MATRIX, "a compressed variable is of type {}", inner.kind);
                Array::parse(inner.data)?
            }
            MATRIX => Array::parse(element.data)?,
            // Text that goes with the variables may be skipped.
            _ => continue,
        };
        if matrix.name == name.as_bytes() {
            return Ok(Some(matrix.value(0)?));
        }
    }
    Ok(None)
}

struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

impl<'a> Element<'a> {
    /// Takes the next element off the front.
    fn take(rest: &mut &'a [u8]) -> Result<Element<'a>> {
        ensure!(rest.len() >= 8, "it is cut off in an element's tag");
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        let (first, second) = (word(0), word(4));
        if first >> 16 != 0 {
            // The small form: length and type share a word, the data are the other.
            let length = (first >> 16) as usize;
            ensure!(length <= 4, "it has a small element of {length} bytes");
            let element = Element { kind: first & 0xffff, data: &rest[4..4 + length] };
            *rest = &rest[8..];
            return Ok(element);
        }
        let length = second as usize;
        ensure!(length <= rest.len() - 8, "it is cut off: an element has {length} bytes, {} are there", rest.len() - 8);
        let element = Element { kind: first, data: &rest[8..8 + length] };
        // Compressed elements are not padded.
        let padded = if first == COMPRESSED { length } else { length.next_multiple_of(8) };
        *rest = &rest[(8 + padded).min(rest.len())..];
        Ok(element)
    }

    /// The data as numbers, whatever the type in which they are stored: MATLAB stores a number in the smallest that holds it.
    fn numbers(&self) -> Result<Vec<f64>> {
        macro_rules! read {
            ($type:ty) => {{
                let values = self.data.as_chunks::<{ size_of::<$type>() }>().0;
                values.iter().map(|value| <$type>::from_le_bytes(*value) as f64).collect()
            }};
        }
        Ok(match self.kind {
            1 => read!(i8),
            2 => read!(u8),
            3 => read!(i16),
            4 => read!(u16),
            5 => read!(i32),
            6 => read!(u32),
            7 => read!(f32),
            9 => read!(f64),
            12 => read!(i64),
            13 => read!(u64),
            other => bail!("it has numbers of the unknown type {other}"),
        })
    }

    fn text(&self) -> Result<String> {
        Ok(match self.kind {
            1 | 2 | 16 => String::from_utf8_lossy(self.data).into_owned(),
            4 | 17 => char::decode_utf16(self.numbers()?.into_iter().map(|unit| unit as u16))
                .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect(),
            other => bail!("it has text of the unknown type {other}"),
        })
    }
}

/// A matrix: flags, dimensions, name, then what its class asks for.
struct Array<'a> {
    class: u8,
    count: usize,
    name: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Array<'a> {
    fn parse(mut data: &'a [u8]) -> Result<Array<'a>> {
        // An empty matrix may have no parts at all.
        if data.is_empty() {
            return Ok(Array { class: EMPTY, count: 0, name: &[], rest: &[] });
        }
        let rest = &mut data;
        let flags = Element::take(rest)?;
        let class = *flags.data.first().context("an array has no class")?;
        let dimensions = Element::take(rest)?;
        ensure!(dimensions.data.len() <= 4 * MAX_DIMENSIONS, "an array has {} dimensions", dimensions.data.len() / 4);
        let dimensions = dimensions.numbers()?;
        let count = dimensions.iter().product::<f64>();
        ensure!(count <= MAX_UNPACKED as f64, "an array has the dimensions {dimensions:?}");
        let name = Element::take(rest)?.data;
        Ok(Array { class, count: count.max(0.0) as usize, name, rest })
    }

    fn value(mut self, depth: usize) -> Result<Value> {
        ensure!(depth < MAX_DEPTH, "its arrays are nested more than {MAX_DEPTH} deep");
        let rest = &mut self.rest;
        Ok(match self.class {
            EMPTY => Value::Numbers(Vec::new()),
            1 => {
                // Not reserved beforehand: the count may be a damaged one.
                let mut cells = Vec::new();
                for _ in 0..self.count {
                    cells.push(nested(rest, depth)?);
                }
                Value::Cells(cells)
            }
            2 => structs(rest, self.count, depth)?,
            4 => Value::Text(Element::take(rest)?.text()?),
            6..=15 => Value::Numbers(Element::take(rest)?.numbers()?),
            _ => Value::Other,
        })
    }
}

fn nested(rest: &mut &[u8], depth: usize) -> Result<Value> {
    let element = Element::take(rest)?;
    ensure!(element.kind == MATRIX, "an array holds an element of type {}", element.kind);
    Array::parse(element.data)?.value(depth + 1)
}

fn structs(rest: &mut &[u8], count: usize, depth: usize) -> Result<Value> {
    let length = Element::take(rest)?.numbers()?;
    let length = length.first().copied().filter(|length| (1.0..=64.0).contains(length)).context("a struct has no names")?;
    let names = Element::take(rest)?.data;
    let name = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let names: Vec<String> = names.chunks_exact(length as usize).map(name).collect();
    let mut array = Vec::new();
    // A struct without fields takes no bytes, so a damaged count would not run out of them.
    ensure!(count == 0 || !names.is_empty(), "a struct has no fields");
    for _ in 0..count {
        array.push((0..names.len()).map(|_| nested(rest, depth)).collect::<Result<Vec<_>>>()?);
    }
    Ok(Value::Structs(names, array))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Written by scipy: tests/data/make_meta.py.
    const COMPRESSED_FILE: &[u8] = include_bytes!("../../tests/data/meta.mat");
    const PLAIN: &[u8] = include_bytes!("../../tests/data/plain.mat");

    #[test]
    fn what_scipy_wrote_is_read() {
        let plain = |name| variable(PLAIN, name).unwrap().unwrap();
        assert_eq!(plain("cells"), Value::Cells(vec![Value::Text("x".into()), Value::Numbers(vec![2.5])]));
        assert_eq!(plain("small"), Value::Numbers(vec![-3.0, 300.0]));
        assert_eq!(plain("text"), Value::Text("no struct".into()));
        assert_eq!(variable(PLAIN, "other").unwrap(), None);
        let synsets = plain("synsets");
        let Value::Structs(fields, rows) = &synsets else { panic!("{synsets:?}") };
        assert_eq!((fields.len(), rows.len()), (8, 4));
        assert_eq!((fields[0].as_str(), fields[7].as_str()), ("ILSVRC2012_ID", "num_train_images"));
        assert_eq!(rows[2][0].number(), Some(3.0));
        assert_eq!(rows[2][1].text(), Some("n00000200"));
        assert_eq!(rows[2][2].text(), Some("bee, honeybee, Bienchen für Größe"));
        assert_eq!(rows[2][7].number(), Some(300.0));
        assert_eq!(rows[3][5], Value::Numbers(vec![1.0, 2.0, 3.0]));
        assert_eq!(variable(COMPRESSED_FILE, "synsets").unwrap(), Some(synsets));
    }

    #[test]
    fn damaged_files_are_errors() {
        for file in [COMPRESSED_FILE, PLAIN] {
            for length in 0..file.len() {
                // Whole variables may remain; the last one does not.
                assert!(!matches!(variable(&file[..length], "synsets"), Ok(Some(_))));
            }
        }
    }
}
