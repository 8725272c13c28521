//! Which position reaches which, through which weights.
//!
//! A map multiplies, for every link, the source position's channels by a block of `rows` x `columns` weights and adds the product to the
//! destination position. Offsets that fall outside the image have no link, so edges cost nothing; their blocks exist and are never touched.

use super::Shape;

/// One product: `destination += source x block`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub source: u32,
    pub destination: u32,
    pub block: u32,
}

/// Links in groups: those of one destination, one source, or one block.
#[derive(Clone, Debug)]
pub struct Links {
    starts: Vec<u32>,
    links: Vec<Link>,
}

impl Links {
    /// A stable counting sort, so that the order of sums inside a group is that of `links`.
    fn grouped(links: &[Link], groups: usize, key: impl Fn(&Link) -> u32) -> Links {
        let mut starts = vec![0u32; groups + 1];
        for link in links {
            starts[key(link) as usize + 1] += 1;
        }
        for group in 0..groups {
            starts[group + 1] += starts[group];
        }
        let mut next = starts.clone();
        let mut sorted = vec![Link { source: 0, destination: 0, block: 0 }; links.len()];
        for link in links {
            let place = &mut next[key(link) as usize];
            sorted[*place as usize] = *link;
            *place += 1;
        }
        Links { starts, links: sorted }
    }

    /// The links of `group`, in the order of their sum.
    pub fn of(&self, group: usize) -> &[Link] {
        &self.links[self.starts[group] as usize..self.starts[group + 1] as usize]
    }
}

/// The sparsity of a map, from `sources` positions of `rows` channels to `destinations` positions of `columns` channels.
#[derive(Clone, Debug)]
pub struct Connectivity {
    pub sources: usize,
    pub destinations: usize,
    pub rows: usize,
    pub columns: usize,
    pub blocks: usize,
    /// Blocks that belong to one position (kernel offsets, or input positions of a dense layer).
    pub blocks_per_position: usize,
    /// Whether there are weights. Without, channels meet channels of the same number, and a block is a place in a window.
    pub weighted: bool,
    pub by_destination: Links,
    pub by_source: Links,
    pub by_block: Links,
}

impl Connectivity {
    fn new(sources: (usize, usize), destinations: (usize, usize), blocks: (usize, usize), links: &[Link]) -> Connectivity {
        Connectivity {
            sources: sources.0,
            rows: sources.1,
            destinations: destinations.0,
            columns: destinations.1,
            blocks: blocks.0,
            blocks_per_position: blocks.1,
            weighted: true,
            by_destination: Links::grouped(links, destinations.0, |link| link.destination),
            by_source: Links::grouped(links, sources.0, |link| link.source),
            by_block: Links::grouped(links, blocks.0, |link| link.block),
        }
    }

    /// Every position of `input` to one position of `units` channels; block p belongs to source position p.
    pub fn dense(input: Shape, units: usize) -> Connectivity {
        let positions = input.positions();
        let links: Vec<Link> = (0..positions as u32).map(|p| Link { source: p, destination: 0, block: p }).collect();
        Connectivity::new((positions, input.channels), (1, units), (positions, positions), &links)
    }

    /// One position of `units` channels to every position of `output`; block p belongs to destination position p.
    pub fn broadcast(units: usize, output: Shape) -> Connectivity {
        let positions = output.positions();
        let links: Vec<Link> = (0..positions as u32).map(|p| Link { source: 0, destination: p, block: p }).collect();
        Connectivity::new((1, units), (positions, output.channels), (positions, 1), &links)
    }

    /// Every position of `source` to every position of `destination`; block s * destinations + d belongs to the two.
    pub fn full(source: Shape, destination: Shape) -> Connectivity {
        let (from, to) = (source.positions(), destination.positions());
        let link = |at: usize| Link { source: (at / to) as u32, destination: (at % to) as u32, block: at as u32 };
        let links: Vec<Link> = (0..from * to).map(link).collect();
        Connectivity::new((from, source.channels), (to, destination.channels), (from * to, to), &links)
    }

    /// Square windows with "same" padding: `total = max((out - 1) * stride + kernel - in, 0)`, half of it (floor) before, the rest after.
    /// Weight (a, b) of output (i, j) reads input (i * stride + a - before, j * stride + b - before), a along the height.
    pub fn windows(input: Shape, output: Shape, kernel: usize, stride: usize, shared: bool) -> Connectivity {
        let offsets = kernel * kernel;
        let before = |input: usize, output: usize| ((output - 1) * stride + kernel).saturating_sub(input) / 2;
        let (top, left) = (before(input.height, output.height), before(input.width, output.width));
        let inside = |at: usize, before: usize, size: usize| at.checked_sub(before).filter(|&place| place < size);
        let mut links = Vec::new();
        for i in 0..output.height {
            for j in 0..output.width {
                let destination = i * output.width + j;
                for a in 0..kernel {
                    let Some(y) = inside(i * stride + a, top, input.height) else { continue };
                    for b in 0..kernel {
                        let Some(x) = inside(j * stride + b, left, input.width) else { continue };
                        let block = if shared { 0 } else { destination * offsets } + a * kernel + b;
                        links.push(Link { source: (y * input.width + x) as u32, destination: destination as u32, block: block as u32 });
                    }
                }
            }
        }
        let blocks = if shared { offsets } else { output.positions() * offsets };
        Connectivity::new((input.positions(), input.channels), (output.positions(), output.channels), (blocks, offsets), &links)
    }

    /// The same links of a pool.
    pub fn without_weights(self) -> Connectivity {
        Connectivity { weighted: false, ..self }
    }

    /// The same links backwards, with a block of columns x rows for each block here: the sparsity of an inverse.
    pub fn reversed(&self) -> Connectivity {
        let links: Vec<Link> = self
            .by_destination
            .links
            .iter()
            .map(|link| Link { source: link.destination, destination: link.source, block: link.block })
            .collect();
        let ends = ((self.destinations, self.columns), (self.sources, self.rows));
        let reversed = Connectivity::new(ends.0, ends.1, (self.blocks, self.blocks_per_position), &links);
        Connectivity { weighted: self.weighted, ..reversed }
    }

    /// Number of products, each `rows` x `columns` multiplications per sample.
    pub fn links(&self) -> usize {
        self.by_destination.links.len()
    }

    /// Weights that exist, those in the padding included.
    pub fn weights(&self) -> usize {
        if self.weighted { self.blocks * self.rows * self.columns } else { 0 }
    }

    /// Floating-point operations of one product with the whole map, for one sample: two per weight and link; of a pool one per channel.
    pub fn operations(&self) -> f64 {
        let each = if self.weighted { 2.0 * self.columns as f64 } else { 1.0 };
        self.links() as f64 * self.rows as f64 * each
    }
}
