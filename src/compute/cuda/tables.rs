//! Links in groups, in the GPU's memory; and how the lowest map, whose input need not lie as activities do, is seen by kernels.

use std::ops::Range;

use anyhow::Result;

use super::gpu::{Address, Gpu, Stream};
use super::kernels::launches::in_fours;
use super::kernels::tables::{Grouping, Input, Share, Tables};
use super::pool::{Place, Pool};
use crate::network::Map;

/// What a pass sums over, and in which groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// A destination's links.
    Forward,
    /// A source's links.
    Transposed,
    /// Those of an update, as its [`Grouping`] says.
    Update,
}

/// A map as a pass sees it.
pub struct View {
    pub tables: Tables,
    /// Of an update.
    pub grouping: Grouping,
    /// Of a block.
    pub rows: usize,
    /// Floats from one sample of the source to the next.
    pub pitch: usize,
    /// 0, or floats from one position of a sample to the next.
    pub place: usize,
}

impl View {
    /// `input` is how the source lies, where it is the input; `decays` says that an update lets weights decay, those without links too.
    pub fn new(map: &Map, pass: Pass, input: &Input, decays: bool) -> View {
        let connectivity = &map.connectivity;
        let grouping = Grouping::choose(connectivity);
        let (mut rows, columns) = (connectivity.rows, in_fours(connectivity.columns));
        if pass == Pass::Transposed {
            return View { tables: Tables::by_source(connectivity), grouping, rows, pitch: columns, place: 0 };
        }
        let (mut pitch, mut place, mut blocks) = (in_fours(rows), 0, connectivity.blocks);
        let mut by_destination = None;
        if let Some((tables, of_block, floats, of_position)) = input.view(map.source) {
            blocks = blocks * rows / of_block as usize;
            (rows, pitch, place, by_destination) = (of_block as usize, floats as usize, of_position as usize, Some(tables));
        }
        let (tables, grouping) = match (pass, grouping, input, by_destination) {
            (Pass::Update, Grouping::Block, Input::Rows(layout), _) => (layout.by_block.clone(), grouping),
            (Pass::Update, Grouping::Block, _, _) => (Tables::by_block(connectivity), grouping),
            (Pass::Update, Grouping::Source, _, None) => (Tables::by_source(connectivity), grouping),
            (_, _, _, Some(tables)) => (tables, Grouping::Destination),
            _ => (Tables::by_destination(connectivity), grouping),
        };
        let unlinked = || (0..connectivity.blocks).any(|block| connectivity.by_block.of(block).is_empty());
        let tables = if decays && pass == Pass::Update && grouping != Grouping::Block && unlinked() {
            // Blocks without links are those of windows, which follow each other group by group.
            tables.decaying(blocks / tables.groups())
        } else {
            tables
        };
        View { tables, grouping, rows, pitch, place }
    }
}

/// A view whose numbers have a place.
pub struct Table {
    view: View,
    pub groups: usize,
    pub most: usize,
    /// Of an update of which ranks own parts: this one's.
    pub share: Option<Share>,
    places: Option<[Place; 2]>,
}

impl Table {
    /// `owned` are the weights of `columns` columns that this rank owns, where an update is of these alone.
    pub fn new(view: View, columns: usize, owned: Option<Range<usize>>) -> Table {
        let share = owned.map(|owned| view.tables.share(view.grouping, [view.rows, columns], &owned));
        Table { groups: view.tables.groups(), most: view.tables.most, share, view, places: None }
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    fn numbers(&self) -> [&[i32]; 2] {
        [&self.view.tables.starts, bytemuck::cast_slice(&self.view.tables.links)]
    }

    pub fn reserve(&mut self, pool: &mut Pool) {
        self.places = Some(self.numbers().map(|numbers| pool.reserve(4 * numbers.len())));
    }

    /// Where starts and links are. None before they have a place.
    pub fn at(&self, pool: &Pool) -> Option<[Address; 2]> {
        self.places.map(|places| places.map(|place| pool.at(place)))
    }

    /// Sends the numbers.
    pub fn fill(&mut self, pool: &Pool, gpu: &dyn Gpu, stream: Stream) -> Result<()> {
        for (place, numbers) in self.places.expect("numbers have a place").into_iter().zip(self.numbers()) {
            let bytes: &[u8] = bytemuck::cast_slice(numbers);
            // SAFETY: the place was reserved for so many, and the driver has read what is not page-locked when it returns.
            unsafe { gpu.upload(pool.at(place), bytes.as_ptr(), bytes.len(), stream)? };
        }
        self.view.tables = Tables::default();
        Ok(())
    }
}
