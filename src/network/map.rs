//! A map: an affine function with a sparsity, with the shapes, fans and names in checkpoints of its weights. One constructor for each role.

use anyhow::{Result, ensure};

use super::{Connectivity, Fields, Interchange, Layer, LayerSpec, Nonlinearity, Plasticity, Shape};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Forward,
    Inverse,
    /// In the place of the layer's transpose (fa), applied from the layer's output to its input.
    Feedback,
    /// Weights from the output's error to a hidden layer (dfa), or to the input (pepita).
    DirectFeedback,
    /// Fixed random features of the penultimate activity (ao_sdtp).
    Auxiliary,
    /// Scale and shift of a normalised layer's channels.
    Normalization,
    /// Running mean and variance of the same, for evaluations.
    Statistics,
}

/// What tables of parameters call a map's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Forward,
    Inverse,
    Feedback,
    NotTrained,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    None,
    PerUnit,
    /// Shared by all positions (conv).
    PerChannel,
}

/// Weight or bias of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Weight,
    Bias,
}

/// What becomes of a window without weights, channel by channel. Outside of the image there is nothing to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    Average,
    Max,
}

/// An affine map with a sparsity: `destination = source x weights + bias`; or a pool, and the way back through one.
#[derive(Clone, Debug)]
pub struct Map {
    /// Counted from 0, the layer above the input.
    pub layer: usize,
    pub role: Role,
    pub plasticity: Plasticity,
    pub source: Shape,
    pub destination: Shape,
    pub connectivity: Connectivity,
    pub pool: Option<Pool>,
    pub bias: Bias,
    /// Fans of the initialisation; only their sum matters.
    pub fans: (usize, usize),
    /// What multiplies the initialisation's bound.
    pub gain: f64,
    pub weight: Interchange,
    pub bias_name: String,
    pub bias_shape: Vec<usize>,
}

impl Map {
    /// Whether the rule hands out updates of it.
    pub fn trained(&self) -> bool {
        self.plasticity == Plasticity::Trained
    }

    pub fn group(&self) -> Group {
        match self.role {
            _ if !self.trained() => Group::NotTrained,
            Role::Forward | Role::Normalization | Role::Auxiliary => Group::Forward,
            Role::Inverse => Group::Inverse,
            Role::Feedback | Role::DirectFeedback => Group::Feedback,
            // They follow the batches, and no gradient of a loss.
            Role::Statistics => Group::NotTrained,
        }
    }

    /// Positions of the destination that have a bias of their own: 0 without bias, 1 where all share it.
    pub fn bias_positions(&self) -> usize {
        match self.bias {
            Bias::None => 0,
            Bias::PerUnit => self.destination.positions(),
            Bias::PerChannel => 1,
        }
    }

    pub fn elements(&self, part: Part) -> usize {
        match part {
            Part::Weight => self.connectivity.weights(),
            Part::Bias => self.bias_positions() * self.destination.channels,
        }
    }

    /// Weights and biases.
    pub fn parameters(&self) -> usize {
        self.elements(Part::Weight) + self.elements(Part::Bias)
    }

    /// What a checkpoint holds of it, with names and shapes: the weight, where it has any, and then the bias.
    pub fn tensors(&self) -> impl Iterator<Item = (Part, &str, &[usize])> {
        let weight = (Part::Weight, self.weight.name.as_str(), self.weight.shape.as_slice());
        let bias = (Part::Bias, self.bias_name.as_str(), self.bias_shape.as_slice());
        [weight, bias].into_iter().filter(|(part, ..)| self.elements(*part) > 0)
    }

    /// # Errors
    /// Where its gradient is no outer product of factors of these shapes.
    pub fn check_factors(&self, pre: Shape, post: Shape) -> Result<()> {
        let fits = pre.lies_as(self.source) && post.lies_as(self.destination);
        ensure!(fits, "the factors of an update do not fit {}", self.weight.name);
        Ok(())
    }

    /// # Errors
    /// Where `values` are not as many as `part` has elements.
    pub fn check(&self, part: Part, values: &[f32]) -> Result<()> {
        let name = if part == Part::Weight { &self.weight.name } else { &self.bias_name };
        let (found, expected) = (values.len(), self.elements(part));
        ensure!(found == expected, "{name} has {found} values where {expected} are needed");
        Ok(())
    }

    /// Of the weights in `tensor`, laid out as this map's, those that read or write something: a window that reaches out of the image has
    /// others, which stay as they were drawn.
    pub fn linked(&self, tensor: &[f32]) -> Vec<f32> {
        let Connectivity { blocks, rows, columns, ref by_block, .. } = self.connectivity;
        let linked = (0..blocks).filter(|block| !by_block.of(*block).is_empty());
        let within = |block| (0..rows).flat_map(move |row| (0..columns).map(move |column| (block, row, column)));
        linked.flat_map(within).map(|(block, row, column)| tensor[self.weight.index(block, row, column)]).collect()
    }

    /// Bound of the uniform initialisation (Glorot & Bengio): gain * sqrt(6 / (fan_in + fan_out)).
    pub fn bound(&self) -> f64 {
        self.gain * (6.0 / (self.fans.0 + self.fans.1) as f64).sqrt()
    }

    /// Deviation of the initial weights: gain * sqrt(2 / (fan_in + fan_out)).
    pub fn deviation(&self) -> f64 {
        self.bound() / 3f64.sqrt()
    }

    pub(super) fn forward(index: usize, layer: &Layer) -> Map {
        let connectivity = layer.connectivity();
        let (rows, columns) = (connectivity.rows, connectivity.columns);
        let conv = matches!(layer.kind, LayerSpec::Conv { .. });
        let pool = match layer.kind {
            LayerSpec::AveragePool { .. } => Some(Pool::Average),
            LayerSpec::MaxPool { .. } => Some(Pool::Max),
            _ => None,
        };
        let (shape, strides, bias_shape) = match layer.kind {
            LayerSpec::Dense { .. } => {
                let inputs = layer.input.units();
                (vec![columns, inputs], [0, rows, 1, inputs], vec![columns])
            }
            LayerSpec::Local { kernel, .. } | LayerSpec::Conv { kernel, .. } => {
                let (per_row, per_offset) = (columns, rows * columns);
                let strides = [kernel * kernel * per_offset, per_offset, per_row, 1];
                let Shape { height, width, .. } = layer.output;
                if conv {
                    (vec![kernel, kernel, rows, columns], strides, vec![columns])
                } else {
                    (vec![height, width, kernel, kernel, rows, columns], strides, vec![height, width, columns])
                }
            }
            LayerSpec::AveragePool { .. } | LayerSpec::MaxPool { .. } => (vec![0], [0; 4], vec![]),
        };
        Map {
            layer: index,
            role: Role::Forward,
            plasticity: if pool.is_none() { Plasticity::Trained } else { Plasticity::Fixed },
            source: layer.input,
            destination: layer.output,
            pool,
            bias: match layer.kind {
                // The shift of the normalisation is in its place, which would take it away again.
                _ if layer.normalization().is_some() => Bias::None,
                LayerSpec::Dense { .. } | LayerSpec::Local { .. } => Bias::PerUnit,
                LayerSpec::Conv { .. } => Bias::PerChannel,
                LayerSpec::AveragePool { .. } | LayerSpec::MaxPool { .. } => Bias::None,
            },
            fans: layer.fans(),
            gain: 1.0,
            weight: interchange(format!("layers.{index}.weight"), shape, strides, &connectivity),
            bias_name: format!("layers.{index}.bias"),
            bias_shape,
            connectivity,
        }
    }

    /// The inverse of `layer`, from its output (with `extra` auxiliary units beside it) to its input. Its windows share their weights where
    /// the layer does the same at all positions, as convolutions and pools do; a pool's has weights from every channel to every other.
    pub(super) fn inverse(index: usize, layer: &Layer, extra: usize, fields: Fields, plasticity: Plasticity) -> Map {
        let shared = fields != Fields::Dense && !matches!(layer.kind, LayerSpec::Dense { .. } | LayerSpec::Local { .. });
        let (connectivity, shape, strides, bias_shape, fans) = match layer.kind {
            LayerSpec::Dense { .. } => {
                let outputs = layer.output.units() + extra;
                let (inputs, channels) = (layer.input.units(), layer.input.channels);
                let connectivity = Connectivity::broadcast(outputs, layer.input);
                (connectivity, vec![inputs, outputs], [channels * outputs, 0, 1, outputs], vec![inputs], (outputs, inputs))
            }
            LayerSpec::Local { kernel, stride, .. }
            | LayerSpec::Conv { kernel, stride, .. }
            | LayerSpec::AveragePool { kernel, stride, .. }
            | LayerSpec::MaxPool { kernel, stride, .. } => {
                let Layer { input, output, .. } = *layer;
                let (rows, columns) = (output.channels, input.channels);
                let bias_shape = vec![input.height, input.width, columns];
                match fields {
                    Fields::Larger(growth) => {
                        let side = kernel + growth;
                        let offsets = side * side;
                        let connectivity = Connectivity::windows(input, output, side, stride, shared).reversed();
                        let (shape, bias_shape) = if shared {
                            (vec![rows, side, side, columns], vec![columns])
                        } else {
                            (vec![output.height, output.width, rows, side, side, columns], bias_shape)
                        };
                        let strides = [rows * offsets * columns, columns, offsets * columns, 1];
                        (connectivity, shape, strides, bias_shape, (offsets * columns, offsets * rows))
                    }
                    Fields::Dense => {
                        let (inputs, outputs) = (input.units(), output.units());
                        let strides = [rows, columns * outputs, 1, outputs];
                        (Connectivity::full(output, input), vec![inputs, outputs], strides, bias_shape, (outputs, inputs))
                    }
                }
            }
        };
        Map {
            layer: index,
            role: Role::Inverse,
            plasticity,
            source: Shape { channels: layer.output.channels + extra, ..layer.output },
            destination: layer.input,
            pool: None,
            bias: if shared { Bias::PerChannel } else { Bias::PerUnit },
            fans,
            gain: 1.0,
            weight: interchange(format!("layers.{index}.inverse.weight"), shape, strides, &connectivity),
            bias_name: format!("layers.{index}.inverse.bias"),
            bias_shape,
            connectivity,
        }
    }

    /// What stands for the transpose of `layer`: shape and names of its weight, applied backwards. Of a pool, which has no weights, the way
    /// back.
    pub(super) fn feedback(index: usize, layer: &Layer, plasticity: Plasticity) -> Map {
        let forward = Map::forward(index, layer);
        let connectivity = match layer.kind {
            LayerSpec::Dense { .. } => Connectivity::broadcast(layer.output.units(), layer.input),
            _ => layer.connectivity().reversed(),
        };
        // Rows and columns change places, and a dense block is one destination position of the broadcast.
        let [position, offset, per_row, per_column] = forward.weight.strides;
        let strides = match layer.kind {
            LayerSpec::Dense { .. } => [offset, 0, per_column, per_row],
            _ => [position, offset, per_column, per_row],
        };
        Map {
            role: Role::Feedback,
            plasticity: if forward.pool.is_none() { plasticity } else { Plasticity::Fixed },
            source: layer.output,
            destination: layer.input,
            bias: Bias::None,
            weight: interchange(format!("layers.{index}.feedback.weight"), forward.weight.shape, strides, &connectivity),
            bias_shape: Vec::new(),
            connectivity,
            ..forward
        }
    }

    pub(super) fn direct_feedback(index: usize, destination: Shape, outputs: usize, plasticity: Plasticity) -> Map {
        let connectivity = Connectivity::broadcast(outputs, destination);
        let units = destination.units();
        let strides = [destination.channels * outputs, 0, 1, outputs];
        Map {
            layer: index,
            role: Role::DirectFeedback,
            plasticity,
            source: Shape::flat(outputs),
            destination,
            pool: None,
            bias: Bias::None,
            fans: (outputs, units),
            gain: 1.0,
            weight: interchange(format!("layers.{index}.direct_feedback.weight"), vec![units, outputs], strides, &connectivity),
            bias_name: String::new(),
            bias_shape: Vec::new(),
            connectivity,
        }
    }

    /// Two numbers for each channel of a normalised layer, as weights of an activity that is 1: first all of one kind, then all of the other.
    pub(super) fn of_channels(index: usize, layer: &Layer, role: Role, name: &str) -> Map {
        let channels = layer.output.channels;
        let (source, destination) = (Shape::flat(1), Shape::flat(2 * channels));
        let connectivity = Connectivity::dense(source, destination.channels);
        Map {
            layer: index,
            role,
            plasticity: Plasticity::Trained,
            source,
            destination,
            pool: None,
            bias: Bias::None,
            fans: (1, 1),
            gain: 1.0,
            weight: interchange(format!("layers.{index}.{name}"), vec![2, channels], [0, 0, 0, 1], &connectivity),
            bias_name: String::new(),
            bias_shape: Vec::new(),
            connectivity,
        }
    }

    /// What each weight is at first, where it is not drawn: scale 1 and shift 0, mean 0 and variance 1.
    pub fn initial(&self) -> Option<Vec<f32>> {
        let halves = match self.role {
            Role::Normalization => [1.0, 0.0],
            Role::Statistics => [0.0, 1.0],
            _ => return None,
        };
        Some(halves.into_iter().flat_map(|value| std::iter::repeat_n(value, self.parameters() / 2)).collect())
    }

    /// From the output to the input. The draw is that of the rule's authors, and knows the input's size alone.
    pub(super) fn input_feedback(input: Shape, outputs: usize) -> Map {
        let mut map = Map::direct_feedback(0, input, outputs, Plasticity::Fixed);
        map.fans = (input.units(), 0);
        map.weight.name = "input_feedback.weight".into();
        map
    }

    pub(super) fn auxiliary(index: usize, layer: &Layer, units: usize) -> Map {
        let kind = LayerSpec::dense(units, Nonlinearity::Tanh);
        let features = Layer { kind, output: Shape::flat(units), ..layer.clone() };
        let mut map = Map::forward(index, &features);
        map.role = Role::Auxiliary;
        map.plasticity = Plasticity::Fixed;
        map.weight.name = "auxiliary.weight".into();
        map.bias_name = "auxiliary.bias".into();
        map
    }
}

fn interchange(name: String, shape: Vec<usize>, strides: [usize; 4], connectivity: &Connectivity) -> Interchange {
    Interchange { name, shape, strides, blocks_per_position: connectivity.blocks_per_position }
}
