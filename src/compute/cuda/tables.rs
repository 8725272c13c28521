//! Links in groups, in the GPU's memory; and how the lowest map, whose input need not lie as activities do, is seen by kernels.

use anyhow::Result;

use super::gpu::{Address, Gpu, Stream};
use super::kernels::launches::in_fours;
use super::kernels::tables::{Grouping, Input, Tables};
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
    /// Of each link, where that is not all: the rows inside the image.
    pub inside: Vec<i32>,
}

impl View {
    /// `input` is how the source lies, where it is the input.
    pub fn new(map: &Map, pass: Pass, input: &Input) -> View {
        let connectivity = &map.connectivity;
        let grouping = Grouping::choose(connectivity);
        let (rows, columns) = (connectivity.rows, in_fours(connectivity.columns));
        if pass == Pass::Transposed {
            return View { tables: Tables::by_source(connectivity), grouping, rows, pitch: columns, place: 0, inside: Vec::new() };
        }
        if let Some((by_destination, rows, pitch, place)) = input.view(map) {
            let (tables, inside) = match input {
                Input::Rows(layout) if grouping == Grouping::Block && pass == Pass::Update => (layout.by_block.clone(), Vec::new()),
                Input::Rows(layout) if grouping != Grouping::Block => (by_destination, layout.inside.clone()),
                _ => (by_destination, Vec::new()),
            };
            let grouping = if grouping == Grouping::Block { grouping } else { Grouping::Destination };
            return View { tables, grouping, rows: rows as usize, pitch: pitch as usize, place: place as usize, inside };
        }
        let tables = match (pass, grouping) {
            (Pass::Forward, _) | (_, Grouping::Destination) => Tables::by_destination(connectivity),
            (_, Grouping::Source) => Tables::by_source(connectivity),
            (_, Grouping::Block) => Tables::by_block(connectivity),
        };
        View { tables, grouping, rows, pitch: in_fours(rows), place: 0, inside: Vec::new() }
    }
}

/// A view whose numbers have a place.
pub struct Table {
    view: View,
    pub groups: usize,
    pub most: usize,
    places: Option<[Place; 3]>,
}

impl Table {
    pub fn new(view: View) -> Table {
        Table { groups: view.tables.groups(), most: view.tables.most, view, places: None }
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    fn numbers(&self) -> [&[i32]; 3] {
        [&self.view.tables.starts, bytemuck::cast_slice(&self.view.tables.links), &self.view.inside]
    }

    pub fn reserve(&mut self, pool: &mut Pool) {
        self.places = Some(self.numbers().map(|numbers| pool.reserve(4 * numbers.len())));
    }

    /// Where starts and links are, and which rows of the links are used, where not all are. None before they have a place.
    pub fn at(&self, pool: &Pool) -> Option<[Address; 3]> {
        let place = |place: Place| if place.bytes > 0 { pool.at(place) } else { Address::NULL };
        self.places.map(|places| places.map(place))
    }

    /// Sends the numbers.
    pub fn fill(&mut self, pool: &Pool, gpu: &dyn Gpu, stream: Stream) -> Result<()> {
        for (place, numbers) in self.places.expect("numbers have a place").into_iter().zip(self.numbers()) {
            let bytes: &[u8] = bytemuck::cast_slice(numbers);
            // SAFETY: the place was reserved for so many, and the driver has read what is not page-locked when it returns.
            unsafe { gpu.upload(pool.at(place), bytes.as_ptr(), bytes.len(), stream)? };
        }
        (self.view.tables, self.view.inside) = (Tables::default(), Vec::new());
        Ok(())
    }
}
