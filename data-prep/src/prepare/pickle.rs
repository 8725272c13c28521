//! What the Python versions of CIFAR hold: a dictionary of texts, lists and arrays of bytes, pickled.
//!
//! A pickle is a program for a machine with a stack. Nothing of it is carried out here that would call anything: the pieces of an
//! array are recognised by the order in which NumPy pickles them, and whatever else is met becomes an unknown. Nothing refers to
//! itself, and what is taken is a part of the file, so a small file cannot become large in memory.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

/// Things in one file; the largest of CIFAR holds some hundred thousand.
const MOST: usize = 1 << 21;

/// A value of the dictionary.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<'a> {
    Number(i64),
    /// A text, or the values of an array.
    Bytes(&'a [u8]),
    List(Vec<Item<'a>>),
    Dictionary(Vec<(&'a [u8], Item<'a>)>),
    /// Bytes in a tuple, and whether the tuple says yes before them. Of all that describes an array, its values and their order matter.
    State(&'a [u8], bool),
    Truth(bool),
    Unknown,
    Mark,
}

/// The entries of the dictionary that a pickle holds.
pub fn dictionary(file: &[u8]) -> Result<HashMap<&str, Item<'_>>> {
    let mut machine = Machine { rest: file, stack: Vec::new(), texts: HashMap::new(), memoized: 0, count: 0 };
    while machine.step().context("it is no pickle of CIFAR's, or damaged")? {}
    match machine.stack.pop() {
        Some(Item::Dictionary(entries)) => {
            Ok(entries.into_iter().filter_map(|(key, item)| Some((std::str::from_utf8(key).ok()?, item))).collect())
        }
        _ => bail!("it is no pickle of CIFAR's: it holds no dictionary"),
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Item<'a>>,
    /// What may be referred to again; all that is no text becomes an unknown there.
    texts: HashMap<u32, &'a [u8]>,
    /// How many things newer pickles have numbered in passing.
    memoized: u32,
    count: usize,
}

impl<'a> Machine<'a> {
    /// Whether there is more to do after the next operation.
    fn step(&mut self) -> Result<bool> {
        let operation = self.take(1)?[0];
        match operation {
            b'.' => return Ok(false),
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'}' => self.push(Item::Dictionary(Vec::new()))?,
            b']' => self.push(Item::List(Vec::new()))?,
            b'(' => self.push(Item::Mark)?,
            b'N' | b')' => self.push(Item::Unknown)?,
            0x88 | 0x89 => self.push(Item::Truth(operation == 0x88))?,
            b'K' => self.number(1)?,
            b'M' => self.number(2)?,
            b'J' => self.number(4)?,
            b'U' | b'C' | 0x8c => self.text(1)?,
            b'T' | b'B' | b'X' => self.text(4)?,
            0x8d | 0x8e => self.text(8)?,
            b'G' => {
                self.take(8)?;
                self.push(Item::Unknown)?;
            }
            b'c' => {
                self.line()?;
                self.line()?;
                self.push(Item::Unknown)?;
            }
            b'q' => {
                let place = self.take(1)?[0];
                self.remember(place.into());
            }
            b'r' => {
                let place = self.size(4)? as u32;
                self.remember(place);
            }
            0x94 => {
                self.remember(self.memoized);
                self.memoized = self.memoized.wrapping_add(1);
            }
            b'h' => {
                let place = self.take(1)?[0];
                self.recall(place.into())?;
            }
            b'j' => {
                let place = self.size(4)? as u32;
                self.recall(place)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' | b'u' => {
                let items = self.since_mark()?;
                self.extend(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend(vec![key, value])?;
            }
            b't' => {
                let items = self.since_mark()?;
                self.tuple(items)?;
            }
            0x85..=0x87 => {
                let at = self.stack.len().checked_sub(usize::from(operation - 0x84)).context("it has too few values")?;
                let items = self.stack.split_off(at);
                self.tuple(items)?;
            }
            // A call, whose result stays unknown.
            b'R' | 0x93 => {
                self.pop()?;
                self.pop()?;
                self.push(Item::Unknown)?;
            }
            // The state of an object takes its place.
            b'b' => {
                let state = self.pop()?;
                self.pop()?;
                let built = match state {
                    Item::State(_, true) => bail!("it holds an array in Fortran's order"),
                    Item::State(bytes, false) => Item::Bytes(bytes),
                    _ => Item::Unknown,
                };
                self.push(built)?;
            }
            other => bail!("it holds the unexpected operation 0x{other:02x}"),
        }
        Ok(true)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).context("it is cut off")?;
        self.rest = rest;
        Ok(taken)
    }

    fn line(&mut self) -> Result<()> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').context("it is cut off")?;
        self.take(end + 1).map(drop)
    }

    fn size(&mut self, bytes: usize) -> Result<usize> {
        let size = self.take(bytes)?.iter().rfold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        usize::try_from(size).context("it is cut off")
    }

    fn number(&mut self, bytes: usize) -> Result<()> {
        let number = self.size(bytes)?;
        self.push(Item::Number(if bytes == 4 { i64::from(number as u32 as i32) } else { number as i64 }))
    }

    fn text(&mut self, bytes: usize) -> Result<()> {
        let length = self.size(bytes)?;
        let text = self.take(length)?;
        self.push(Item::Bytes(text))
    }

    fn push(&mut self, item: Item<'a>) -> Result<()> {
        self.count += 1;
        ensure!(self.count <= MOST, "it holds more than {MOST} values");
        self.stack.push(item);
        Ok(())
    }

    fn pop(&mut self) -> Result<Item<'a>> {
        self.stack.pop().context("it has too few values")
    }

    fn since_mark(&mut self) -> Result<Vec<Item<'a>>> {
        let at = self.stack.iter().rposition(|item| *item == Item::Mark).context("it has too few values")?;
        let items = self.stack.split_off(at + 1);
        self.stack.pop();
        Ok(items)
    }

    fn remember(&mut self, place: u32) {
        if let Some(Item::Bytes(text)) = self.stack.last() {
            self.texts.insert(place, text);
        }
    }

    fn recall(&mut self, place: u32) -> Result<()> {
        let item = self.texts.get(&place).map_or(Item::Unknown, |text| Item::Bytes(text));
        self.push(item)
    }

    fn tuple(&mut self, items: Vec<Item<'a>>) -> Result<()> {
        let state = match &items[..] {
            [.., Item::Truth(fortran), Item::Bytes(bytes)] => Item::State(bytes, *fortran),
            _ => Item::Unknown,
        };
        self.push(state)
    }

    /// Adds to the list or dictionary that is on top. What lies in a list is no list itself.
    fn extend(&mut self, items: Vec<Item<'a>>) -> Result<()> {
        let plain = |item| if matches!(item, Item::Number(_) | Item::Bytes(_)) { item } else { Item::Unknown };
        match self.stack.last_mut() {
            Some(Item::List(list)) => list.extend(items.into_iter().map(plain)),
            Some(Item::Dictionary(entries)) => {
                let mut items = items.into_iter();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    let value = if matches!(value, Item::Dictionary(_)) { Item::Unknown } else { value };
                    if let Item::Bytes(key) = key {
                        entries.push((key, value));
                    }
                }
            }
            _ => bail!("it adds to what is no list"),
        }
        Ok(())
    }
}
