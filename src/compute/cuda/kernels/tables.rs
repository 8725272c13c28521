//! A map's links as the kernels read them, and how the lowest layer's input lies.

use std::ops::Range;

use super::arguments::Pixels;
use super::launches::in_fours;
use crate::network::{Connectivity, Link, Map, Shape};

/// Links in groups, ready for a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Where each group's links begin, and where the last ends.
    pub starts: Vec<i32>,
    /// Position and block of each; of a shared block: its source and its destination.
    pub links: Vec<[i32; 2]>,
    /// Links of a group at most.
    pub most: usize,
}

impl Tables {
    /// `groups` groups of links, of which `of` names those of one.
    fn new<'a>(groups: usize, of: impl Fn(usize) -> &'a [Link], pair: impl Fn(&Link) -> [u32; 2]) -> Tables {
        let mut tables = Tables { starts: vec![0], ..Tables::default() };
        for group in 0..groups {
            tables.links.extend(of(group).iter().map(|link| pair(link).map(|index| index as i32)));
            tables.end_group();
        }
        tables
    }

    fn end_group(&mut self) {
        let begin = *self.starts.last().expect("the first group begins at 0") as usize;
        self.most = self.most.max(self.links.len() - begin);
        self.starts.push(self.links.len() as i32);
    }

    pub fn groups(&self) -> usize {
        self.starts.len() - 1
    }

    /// The same, with a link that reads nothing to each block that has none, `per_group` blocks belonging to a group: for an update by an
    /// optimiser that lets all weights decay.
    pub fn decaying(&self, per_group: usize) -> Tables {
        let mut tables = Tables { starts: vec![0], ..Tables::default() };
        for (group, bounds) in self.starts.windows(2).enumerate() {
            let links = &self.links[bounds[0] as usize..bounds[1] as usize];
            let blocks = (group * per_group..(group + 1) * per_group).map(|block| block as i32);
            tables.links.extend(links);
            tables.links.extend(blocks.filter(|block| links.iter().all(|link| link[1] != *block)).map(|block| [-1, block]));
            tables.end_group();
        }
        tables
    }

    /// What is made of an update to have elements `owned` of weights in blocks of `rows` x `columns`; nothing where no link leads to them.
    pub fn share(&self, grouping: Grouping, [rows, columns]: [usize; 2], owned: &Range<usize>) -> Share {
        let (block, padded) = (rows * columns, in_fours(rows));
        let mut share = Share { elements: 0..0, first: (usize::MAX, 0), last: (0, 0) };
        for (group, bounds) in self.starts.windows(2).enumerate() {
            let blocks: Vec<usize> = match grouping {
                Grouping::Block => vec![group],
                _ => self.links[bounds[0] as usize..bounds[1] as usize].iter().map(|link| link[1] as usize).collect(),
            };
            for (number, begin) in blocks.into_iter().map(|number| number * block).enumerate() {
                let (from, to) = (owned.start.max(begin), owned.end.min(begin + block));
                if from >= to {
                    continue;
                }
                let [first, last] = match grouping {
                    Grouping::Source => [number * columns, (number + 1) * columns - 1],
                    _ => [from, to - 1].map(|element| number * padded + (element - begin) / columns),
                };
                share.elements = owned.clone();
                (share.first, share.last) = (share.first.min((group, first)), share.last.max((group, last)));
            }
        }
        share
    }

    /// What `apply` reads, and an update whose blocks belong to one destination each.
    pub fn by_destination(map: &Connectivity) -> Tables {
        Tables::new(map.destinations, |group| map.by_destination.of(group), |link| [link.source, link.block])
    }

    /// What `apply`, transposed, reads, and an update whose blocks belong to one source each.
    pub fn by_source(map: &Connectivity) -> Tables {
        Tables::new(map.sources, |group| map.by_source.of(group), |link| [link.destination, link.block])
    }

    /// What the update of shared blocks reads.
    pub fn by_block(map: &Connectivity) -> Tables {
        Tables::new(map.blocks, |group| map.by_block.of(group), |link| [link.source, link.destination])
    }
}

/// A part of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of the weights.
    pub elements: Range<usize>,
    /// The first group and the last, and the first and the last row in them; column where groups are of sources.
    pub first: (usize, usize),
    pub last: (usize, usize),
}

/// How an update's links are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    Destination,
    Source,
    /// Positions share blocks.
    Block,
}

impl Grouping {
    /// The grouping of few groups with many links: their tiles are whole. On a tie, that whose blocks follow each other in memory.
    pub fn choose(map: &Connectivity) -> Grouping {
        let links = |block: usize| map.by_block.of(block);
        if (0..map.blocks).any(|block| links(block).len() > 1) {
            return Grouping::Block;
        }
        let natural = |position: fn(&Link) -> u32| {
            (0..map.blocks).all(|block| links(block).iter().all(|link| position(link) as usize == block / map.blocks_per_position))
        };
        match map.destinations.cmp(&map.sources) {
            std::cmp::Ordering::Less => Grouping::Destination,
            std::cmp::Ordering::Greater => Grouping::Source,
            std::cmp::Ordering::Equal if natural(|link| link.destination) => Grouping::Destination,
            std::cmp::Ordering::Equal => Grouping::Source,
        }
    }
}

/// How the input lies that the lowest map reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// As any activity.
    Activity,
    /// All of a sample is one line, and one position.
    Dense,
    Rows(Rows),
}

/// An image of few channels, as lines of each sample, padded so that no window leaves them: a row of a kernel is one link, not many short ones.
///
/// A row may begin at any float, but is copied 16 bytes at a time: there are as many copies of the image, each shifted against the last, as it
/// takes for every row to begin on 16 bytes in one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    lines: usize,
    line: usize,
    top: usize,
    left: usize,
    shifts: usize,
    channels: usize,
    /// Side of a kernel.
    kernel: usize,
    /// For `apply`, and for the update where positions have blocks of their own.
    pub by_destination: Tables,
    /// For the update where positions share blocks.
    pub by_block: Tables,
}

/// Floats that a link's position counts, where an image lies as lines.
const PLACE: i32 = 4;

/// Images of fewer channels lie as lines: with more, a link fills a chunk of K by itself.
const FEW_CHANNELS: usize = 16;

impl Input {
    /// The layout that suits `map`, the lowest one; nothing else may read the input as an activity.
    pub fn choose(map: &Map) -> Input {
        if map.pool.is_some() { Input::Activity } else { Input::between(&map.connectivity, map.source, map.destination) }
    }

    pub(super) fn between(connectivity: &Connectivity, source: Shape, destination: Shape) -> Input {
        let shared = connectivity.blocks == connectivity.blocks_per_position && connectivity.destinations > 1;
        let dense = |(place, link): (usize, &Link)| link.source as usize == place && link.block as usize == place;
        let links = connectivity.by_destination.of(0);
        if connectivity.destinations == 1 && links.len() == connectivity.sources && links.iter().enumerate().all(dense) {
            Input::Dense
        } else if connectivity.rows >= FEW_CHANNELS {
            Input::Activity
        } else {
            Input::Rows(Rows::new(connectivity, source, destination, shared))
        }
    }

    /// Floats of a sample of `shape`.
    pub fn floats(&self, shape: Shape) -> usize {
        match self {
            Input::Rows(rows) => rows.shifts * rows.lines * rows.line,
            Input::Activity => shape.positions() * in_fours(shape.channels),
            Input::Dense => in_fours(shape.units()),
        }
    }

    /// How the lowest map reads an input of `shape`: its links by destination, and its rows, pitch and place; nothing where it reads it as any
    /// other activity.
    pub fn view(&self, shape: Shape) -> Option<(Tables, i32, i32, i32)> {
        let pitch = self.floats(shape) as i32;
        match self {
            Input::Activity => None,
            Input::Dense => Some((Tables { starts: vec![0, 1], links: vec![[0, 0]], most: 1 }, shape.units() as i32, pitch, 0)),
            Input::Rows(rows) => Some((rows.by_destination.clone(), (rows.kernel * rows.channels) as i32, pitch, PLACE)),
        }
    }

    /// The layout's part of what `pixels` is told, of images of `shape`.
    pub fn pixels(&self, shape: Shape) -> Pixels {
        let [height, width, channels] = [shape.height, shape.width, shape.channels].map(|size| size as i32);
        match self {
            Input::Activity => Pixels { height, width, colours: channels, ..Pixels::default() },
            Input::Dense => {
                let (line, width) = (in_fours(shape.units()) as i32, shape.units() as i32);
                Pixels { height: 1, width, colours: 1, rows: 1, lines: 1, line, shifts: 1, ..Pixels::default() }
            }
            Input::Rows(rows) => {
                let [lines, line, top, left, shifts] = [rows.lines, rows.line, rows.top, rows.left, rows.shifts].map(|size| size as i32);
                Pixels { height, width, colours: channels, rows: 1, lines, line, top, left, shifts, ..Pixels::default() }
            }
        }
    }
}

impl Rows {
    fn new(connectivity: &Connectivity, from: Shape, to: Shape, shared: bool) -> Rows {
        let (channels, kernel) = (from.channels, connectivity.blocks_per_position.isqrt());
        // Where the windows of each line and column of outputs begin, in the image's coordinates.
        let (mut tops, mut lefts) = (vec![0; to.height], vec![0; to.width]);
        for destination in 0..connectivity.destinations {
            for link in connectivity.by_destination.of(destination) {
                let (source, offset) = (link.source as usize, link.block as usize % connectivity.blocks_per_position);
                tops[destination / to.width] = (source / from.width) as i64 - (offset / kernel) as i64;
                lefts[destination % to.width] = (source % from.width) as i64 - (offset % kernel) as i64;
            }
        }
        let before = |begins: &[i64]| begins.iter().map(|begin| -begin).max().unwrap_or(0).max(0);
        let end = |begins: &[i64]| begins.iter().copied().max().unwrap_or(0) + kernel as i64;
        let (top, left) = (before(&tops), before(&lefts));
        let begins: Vec<usize> = lefts.iter().map(|begin| (begin + left) as usize * channels).collect();
        let shifts = if begins.iter().all(|begin| begin % 4 == 0) {
            1
        } else if begins.iter().all(|begin| begin % 2 == 0) {
            2
        } else {
            4
        };
        let (lines, line) = ((end(&tops) + top) as usize, in_fours((end(&lefts) + left) as usize * channels));
        let mut by_destination = Tables { starts: vec![0], ..Tables::default() };
        let mut by_row = vec![Vec::new(); kernel];
        for destination in 0..connectivity.destinations {
            let (i, j) = (destination / to.width, destination % to.width);
            for (row, of_row) in by_row.iter_mut().enumerate() {
                let y = tops[i] + row as i64;
                if y < 0 || y >= from.height as i64 {
                    continue;
                }
                let copy = begins[j] % 4 * shifts / 4;
                let place = ((copy * lines + (y + top) as usize) * line + begins[j]) / PLACE as usize;
                let block = if shared { row } else { destination * kernel + row };
                by_destination.links.push([place as i32, block as i32]);
                of_row.push([place as i32, destination as i32]);
            }
            by_destination.end_group();
        }
        let mut by_block = Tables { starts: vec![0], ..Tables::default() };
        for links in by_row {
            by_block.links.extend(links);
            by_block.end_group();
        }
        let (top, left) = (top as usize, left as usize);
        Rows { lines, line, top, left, shifts, channels, kernel, by_destination, by_block }
    }
}
