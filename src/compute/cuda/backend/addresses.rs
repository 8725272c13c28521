//! Where things are on the GPU; somewhere, before there is memory.

use anyhow::Result;

use super::{CudaBackend, Places, SOMEWHERE};
use crate::compute::cuda::gpu::Address;
use crate::compute::cuda::kernels::arguments as c;
use crate::compute::cuda::kernels::launches::in_fours;
use crate::compute::cuda::kernels::tables::Input;
use crate::compute::cuda::pool::Place;
use crate::compute::cuda::tables::{Pass, Table, View};
use crate::compute::{Activity, Measure, Update};
use crate::network::{MapId, Shape};

impl CudaBackend {
    pub(in crate::compute::cuda) fn at(&self, place: Place) -> Address {
        if self.is_planning() { SOMEWHERE } else { self.pool.at(place) }
    }

    fn of(&self, place: impl FnOnce(&Places) -> Address) -> Address {
        self.places.as_ref().map_or(SOMEWHERE, place)
    }

    /// The values of an activity, [position, sample, pitch], of this rank.
    pub(in crate::compute::cuda) fn values(&self, activity: Activity) -> Address {
        let slot = &self.slots[activity.0];
        let before = if slot.gathered { self.rank * 4 * self.capacity * slot.each } else { 0 };
        slot.place.map_or(SOMEWHERE, |place| self.pool.at(place).offset(before))
    }

    /// Those of all ranks, one after another.
    pub(in crate::compute::cuda) fn all_values(&self, activity: Activity) -> Address {
        self.slots[activity.0].place.map_or(SOMEWHERE, |place| self.pool.at(place))
    }

    pub(in crate::compute::cuda) fn pixels(&self) -> Address {
        self.of(|places| places.inbox.pixels(&self.pool))
    }

    pub(in crate::compute::cuda) fn labels(&self) -> Address {
        self.of(|places| places.inbox.labels(&self.pool))
    }

    /// Scales and shifts of bytes, by channel.
    pub(in crate::compute::cuda) fn scaling(&self) -> [Address; 2] {
        let of = |number| self.of(|places| places.inbox.scaling(number, &self.pool));
        [of(0), of(1)]
    }

    pub(in crate::compute::cuda) fn place(&self) -> Address {
        self.of(|places| places.inbox.place(&self.pool))
    }

    /// The constants of a map's optimiser.
    pub(in crate::compute::cuda) fn optimizer(&self, map: MapId) -> Address {
        self.of(|places| places.inbox.optimizer(map.0, &self.pool))
    }

    /// The row of a measure.
    pub(in crate::compute::cuda) fn measured(&self, measure: Measure) -> Address {
        self.of(|places| self.pool.at(places.measured).offset(4 * measure as usize * self.capacity))
    }

    pub(in crate::compute::cuda) fn measures_here(&self) -> *mut f32 {
        self.places().measured_here
    }

    /// Plans to keep so many gradients of a map.
    pub(in crate::compute::cuda) fn keep_gradients(&mut self, map: MapId, gradients: usize) {
        if let Some(plan) = &mut self.plan {
            let kept = plan.kept.entry(map.0).or_default();
            *kept = (*kept).max(gradients);
        }
    }

    /// The first gradient that is kept of a map.
    pub fn gradients(&self, map: MapId) -> Address {
        self.of(|places| self.pool.at(places.gradients[&map.0]))
    }

    /// Where all ranks' values of an activity travel rounded.
    pub(in crate::compute::cuda) fn wire_of(&self, activity: Activity) -> Address {
        self.pool.at(self.slots[activity.0].wire.expect("what ranks gather has a wire"))
    }

    /// The same of a map's gradients and changes, and where its parameters are kept as they were.
    pub(in crate::compute::cuda) fn wire_of_map(&self, map: MapId) -> [Address; 2] {
        self.places().wires[&map.0].map(|place| self.pool.at(place))
    }

    /// Where the pieces of a map begin whose elements of so many bytes lie from `at`, and the bytes of each rank's part: what collective
    /// operations are told.
    pub fn pieces_from(&self, map: MapId, at: Address, bytes: usize) -> Vec<(Address, usize)> {
        let pieces = self.parameters[map.0].pieces.iter().filter(|piece| !piece.owned.is_empty());
        pieces.map(|piece| (at.offset(bytes * piece.used.start), bytes * piece.owned.len())).collect()
    }

    /// Whether ranks gather a map's factors.
    pub fn gathers(&self, map: MapId) -> bool {
        self.gathered[map.0]
    }

    /// Plans for an activity that ranks bring together.
    pub(in crate::compute::cuda) fn plan_gathering(&mut self, activity: Activity) {
        self.slots[activity.0].gathered |= self.size > 1;
    }

    /// Room for the `parts` next partial sums of the inverse loss.
    pub(in crate::compute::cuda) fn parts_of_inverse_loss(&mut self, parts: usize) -> Address {
        let before = self.measured_parts;
        self.measured_parts += parts;
        if let Some(plan) = &mut self.plan {
            plan.measured_parts = plan.measured_parts.max(before + parts);
        }
        self.first_part().offset(4 * before * self.batch)
    }

    pub(in crate::compute::cuda) fn first_part(&self) -> Address {
        self.of(|places| self.pool.at(places.parts))
    }

    /// Room for so many floats that a launch uses alone.
    pub(in crate::compute::cuda) fn partial(&mut self, floats: usize) -> Address {
        if let Some(plan) = &mut self.plan {
            plan.partial = plan.partial.max(floats);
        }
        self.of(|places| self.pool.at(places.partial))
    }

    /// What kernels are told of a map for a pass over it.
    pub(in crate::compute::cuda) fn map(&mut self, id: MapId, pass: Pass) -> (c::Map, &Table) {
        let (maps, input) = (&self.maps, &self.input);
        let map = maps.get(id);
        let (planning, decays, columns) = (self.plan.is_some(), self.decays[id.0], in_fours(map.connectivity.columns));
        let owned = (pass == Pass::Update && self.gathered[id.0]).then(|| self.parameters[id.0].pieces[0].own());
        let table = self.tables.entry((id.0, pass)).or_insert_with(|| {
            assert!(planning, "a pass over {} was not planned", map.weight.name);
            Table::new(View::new(map, pass, if id == maps.forward[0] { input } else { &Input::Activity }, decays), columns, owned)
        });
        let [starts, links] = table.at(&self.pool).unwrap_or([SOMEWHERE; 2]);
        let View { rows, pitch, place, .. } = table.view();
        let [rows, columns, pitch, place] = [*rows, columns, *pitch, *place].map(|size| size as i32);
        (c::Map { starts: starts.0, links: links.0, rows, columns, pitch, place }, table)
    }

    /// Says that an activity is read as activities are: the input then must be laid out as one.
    pub(in crate::compute::cuda) fn read_plainly(&mut self, activity: Activity) {
        if let (Some(plan), Activity(0)) = (&mut self.plan, activity) {
            plan.plain_input = true;
        }
    }

    pub(in crate::compute::cuda) fn holds(&self, activity: Activity, shape: Shape) -> bool {
        self.slots[activity.0].shape.lies_as(shape)
    }

    /// Checks an update's factors, and plans for what ranks gather.
    pub(in crate::compute::cuda) fn take_factors(&mut self, update: &Update) -> Result<()> {
        let map = self.maps.get(update.map);
        map.check_factors(self.slots[update.pre.0].shape, self.slots[update.post.0].shape)?;
        if update.map != self.maps.forward[0] {
            self.read_plainly(update.pre);
        }
        if self.is_planning() && self.gathers(update.map) {
            [update.pre, update.post].into_iter().for_each(|activity| self.plan_gathering(activity));
        }
        Ok(())
    }
}
