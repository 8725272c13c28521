//! A map's links as windows, so that every map is one batched product.
//!
//! A window is an outer position together with the inner positions that it is linked to, one for each offset: a local layer's output
//! position and what its kernel covers; for a dense layer, all of its input. Maps that lead up read windows ([`Windows::collect`]) and
//! multiply; those that lead back (inverses, feedback) multiply and write windows ([`Windows::spread`]). Sums over windows that overlap are
//! gathered, not scattered: a GPU's atomic additions would give other bits at every run.

use tch::{Device, Kind, TchError, Tensor};

use crate::network::{Link, Map, Pool, Role};

/// How a map's weights, [count or 1, offsets * inner, outer], meet its activities.
pub struct Windows {
    /// Whether the map goes from inner to outer positions.
    pub reads: bool,
    pub count: i64,
    pub offsets: i64,
    /// Channels of an inner and of an outer position.
    pub inner: i64,
    pub outer: i64,
    /// One set of weights for all windows (conv).
    pub shared: bool,
    /// Inner positions.
    positions: i64,
    /// Of a pool, [count, 1, 1]: one over the places of a window that are inside the image.
    shares: Option<Tensor>,
    /// Absent where a single window covers every inner position in order.
    places: Option<Places>,
}

struct Places {
    /// [count * offsets]: the inner position of an offset; `positions` where it falls outside.
    inside: Tensor,
    any_outside: bool,
    /// [positions * depth]: the (window, offset) pairs that have an inner position; `count * offsets` where there are fewer than depth.
    reaching: Tensor,
    depth: i64,
}

impl Windows {
    /// The windows of `map`, with index tensors on `device`.
    pub fn new(map: &Map, device: Device) -> Result<Windows, TchError> {
        let connectivity = &map.connectivity;
        let reads = matches!(map.role, Role::Forward | Role::Auxiliary);
        let (inner, outer) = ((connectivity.sources, connectivity.rows), (connectivity.destinations, connectivity.columns));
        let ((positions, inner), (count, outer)) = if reads { (inner, outer) } else { (outer, inner) };
        let shared = count > 1 && connectivity.blocks == connectivity.blocks_per_position;
        let offsets = if shared { connectivity.blocks } else { connectivity.blocks / count };
        let mut inside = vec![positions as i64; count * offsets];
        for position in 0..connectivity.destinations {
            for Link { source, destination, block } in connectivity.by_destination.of(position) {
                let (place, window) = if reads { (*source, *destination) } else { (*destination, *source) };
                inside[window as usize * offsets + *block as usize % offsets] = i64::from(place);
            }
        }
        let in_order = count == 1 && offsets == positions && inside.iter().enumerate().all(|(offset, place)| offset as i64 == *place);
        let places = if in_order { None } else { Some(Places::new(&inside, positions, device)?) };
        let shares = || -> Result<Tensor, TchError> {
            let inside = |window| connectivity.by_destination.of(window).len() as f32;
            let shares: Vec<f32> = (0..count).map(|window| 1.0 / inside(window)).collect();
            Tensor::f_from_slice(&shares)?.f_to_device(device)?.f_view([-1, 1, 1])
        };
        let shares = map.pool.filter(|_| reads).map(|_| shares()).transpose()?;
        let [count, offsets, inner, outer, positions] = [count, offsets, inner, outer, positions].map(|size| size as i64);
        Ok(Windows { reads, count, offsets, inner, outer, shared, positions, shares, places })
    }

    /// Shape of the weights: windows that have some of their own, inputs of one, outputs.
    pub fn weights(&self) -> [i64; 3] {
        [if self.shared { 1 } else { self.count }, self.offsets * self.inner, self.outer]
    }

    /// What each window covers: [positions, batch, inner] becomes [count, batch, offsets * inner], zero outside.
    pub fn collect(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let batch = x.size()[1];
        let Some(places) = &self.places else {
            return x.f_permute([1, 0, 2])?.f_reshape([1, batch, self.positions * self.inner]);
        };
        let zero;
        let x = if places.any_outside {
            zero = with_zero(x)?;
            &zero
        } else {
            x
        };
        let covered = x.f_index_select(0, &places.inside)?.f_view([self.count, self.offsets, batch, self.inner])?;
        covered.f_permute([0, 2, 1, 3])?.f_reshape([self.count, batch, self.offsets * self.inner])
    }

    /// A pool of [positions, batch, channels], [count, batch, channels]; and of a maximum which places won.
    pub fn pooled(&self, pool: Pool, x: &Tensor) -> Result<(Tensor, Option<Tensor>), TchError> {
        let outside = if pool == Pool::Max { f64::NEG_INFINITY } else { 0.0 };
        let covered = match &self.places {
            None => x.shallow_clone(),
            Some(places) => with_last(x, outside)?.f_index_select(0, &places.inside)?,
        };
        let covered = covered.f_view([self.count, self.offsets, x.size()[1], self.inner])?;
        match &self.shares {
            Some(shares) if pool == Pool::Average => {
                Ok((covered.f_sum_dim_intlist([1].as_slice(), false, Kind::Float)?.f_mul(shares)?, None))
            }
            _ => covered.f_max_dim(1, false).map(|(largest, winners)| (largest, Some(winners))),
        }
    }

    /// The way back of an error, to the places that won or to all in equal parts.
    pub fn unpooled(&self, error: &Tensor, winners: Option<&Tensor>) -> Result<Tensor, TchError> {
        let batch = error.size()[1];
        let size = [self.count, self.offsets, batch, self.inner];
        let of_places = match (winners, &self.shares) {
            (None, Some(shares)) => error.f_mul(shares)?.f_unsqueeze(1)?.f_expand(size, false)?,
            (winners, _) => {
                let winners = winners.expect("the pass up came before").f_unsqueeze(1)?;
                Tensor::f_zeros(size, (Kind::Float, error.device()))?.f_scatter(1, &winners, &error.f_unsqueeze(1)?)?
            }
        };
        self.spread(&of_places.f_permute([0, 2, 1, 3])?.f_reshape([self.count, batch, self.offsets * self.inner])?)
    }

    /// Windows that share weights as the samples of one: [count, batch, n] becomes [1, count * batch, n].
    pub fn rows(&self, x: &Tensor) -> Result<Tensor, TchError> {
        if self.shared { x.f_reshape([1, -1, x.size()[2]]) } else { Ok(x.shallow_clone()) }
    }

    /// The sum of what windows say about each inner position: [count, batch, offsets * inner] becomes [positions, batch, inner].
    pub fn spread(&self, z: &Tensor) -> Result<Tensor, TchError> {
        let batch = z.size()[1];
        let Some(places) = &self.places else {
            return z.f_view([batch, self.positions, self.inner])?.f_permute([1, 0, 2])?.f_contiguous();
        };
        let pairs = z.f_view([self.count, batch, self.offsets, self.inner])?.f_permute([0, 2, 1, 3])?;
        let pairs = with_zero(&pairs.f_reshape([self.count * self.offsets, batch, self.inner])?)?;
        let reaching = pairs.f_index_select(0, &places.reaching)?;
        reaching.f_view([self.positions, places.depth, batch, self.inner])?.f_sum_dim_intlist([1].as_slice(), false, Kind::Float)
    }
}

impl Places {
    fn new(inside: &[i64], positions: usize, device: Device) -> Result<Places, TchError> {
        let mut reaching = vec![Vec::new(); positions];
        for (pair, place) in inside.iter().enumerate() {
            if let Some(pairs) = reaching.get_mut(*place as usize) {
                pairs.push(pair as i64);
            }
        }
        let depth = reaching.iter().map(Vec::len).max().unwrap_or(0).max(1);
        for pairs in &mut reaching {
            pairs.resize(depth, inside.len() as i64);
        }
        Ok(Places {
            inside: Tensor::f_from_slice(inside)?.f_to_device(device)?,
            any_outside: inside.contains(&(positions as i64)),
            reaching: Tensor::f_from_slice(&reaching.concat())?.f_to_device(device)?,
            depth: depth as i64,
        })
    }
}

/// `x` with a position of zeros after the last.
fn with_zero(x: &Tensor) -> Result<Tensor, TchError> {
    with_last(x, 0.0)
}

/// `x` with a position that holds `value` after the last.
fn with_last(x: &Tensor, value: f64) -> Result<Tensor, TchError> {
    let size = x.size();
    let last = Tensor::f_full([1, size[1], size[2]], value, (Kind::Float, x.device()))?;
    Tensor::f_cat(&[x, &last], 0)
}
