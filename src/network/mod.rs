//! What a network is: shapes, layers, and the maps between activities that a learning rule needs.
//!
//! Every layer kind is described by one structure, its [`Connectivity`]: which source position reaches which destination position through
//! which block of weights. A dense layer has one destination, a local layer one block per link, a convolution shares its blocks. No
//! backend, rule or exchange asks for a layer's kind.

mod connectivity;
mod interchange;
mod map;
mod maps;
mod needs;
mod nonlinearity;
mod spec;

use anyhow::{Result, bail};

pub use connectivity::{Connectivity, Link, Links};
pub use interchange::Interchange;
pub use map::{Bias, Group, Map, Part, Pool, Role};
pub use maps::{MapId, Maps};
pub use needs::{Feedback, Fields, Gains, Inverses, Magnitude, Needs, Plasticity};
pub use nonlinearity::Nonlinearity;
pub use spec::{LayerOptions, LayerSpec, Normalization, Output, Spec};

/// Height, width and channels of an activity; a dense activity of D units is 1 x 1 x D.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Shape {
    /// A dense activity.
    pub fn flat(units: usize) -> Shape {
        Shape { height: 1, width: 1, channels: units }
    }

    pub fn positions(self) -> usize {
        self.height * self.width
    }

    pub fn units(self) -> usize {
        self.positions() * self.channels
    }

    /// Whether values of this shape lie in memory as those of the other do.
    pub fn lies_as(self, other: Shape) -> bool {
        (self.positions(), self.channels) == (other.positions(), other.channels)
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.positions() {
            1 => write!(f, "{}", self.channels),
            _ => write!(f, "{}x{}x{}", self.height, self.width, self.channels),
        }
    }
}

/// One map of the forward network, with the shapes on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub kind: LayerSpec,
    pub input: Shape,
    pub output: Shape,
    /// The activity that it reads: 0 is the input, l the output of layer l - 1.
    pub source: usize,
    /// The activity that is added to its pre-activation.
    pub shortcut: Option<usize>,
}

impl Layer {
    /// Fans of the initialisation (in, out), as docs/algorithms.md gives them: k*k*C on both sides of spatial layers.
    pub fn fans(&self) -> (usize, usize) {
        match self.kind {
            LayerSpec::Dense { units, .. } => (self.input.units(), units),
            LayerSpec::Local { kernel, .. } | LayerSpec::Conv { kernel, .. } => {
                (kernel * kernel * self.input.channels, kernel * kernel * self.output.channels)
            }
            // Nothing is drawn.
            LayerSpec::AveragePool { .. } | LayerSpec::MaxPool { .. } => (1, 1),
        }
    }

    pub fn normalization(&self) -> Option<Normalization> {
        self.kind.options().normalization
    }

    pub fn connectivity(&self) -> Connectivity {
        match self.kind {
            LayerSpec::Dense { units, .. } => Connectivity::dense(self.input, units),
            LayerSpec::Local { kernel, stride, .. } => Connectivity::windows(self.input, self.output, kernel, stride, false),
            LayerSpec::Conv { kernel, stride, .. } => Connectivity::windows(self.input, self.output, kernel, stride, true),
            LayerSpec::AveragePool { kernel, stride, .. } | LayerSpec::MaxPool { kernel, stride, .. } => {
                Connectivity::windows(self.input, self.output, kernel, stride, true).without_weights()
            }
        }
    }
}

/// The forward network: layers bottom up, the output layer last.
#[derive(Clone, Debug)]
pub struct Network {
    pub input: Shape,
    pub output: Output,
    pub layers: Vec<Layer>,
}

impl Network {
    /// The network of `spec` on images of `input` = [height, width, channels] with `classes` classes.
    ///
    /// Where the first layer is dense the input is one position of height * width * channels units, in H, W, C order.
    /// Fails where [`Spec::misplaced`] says so, and where a shortcut joins two shapes.
    pub fn new(input: [usize; 3], classes: usize, spec: &Spec) -> Result<Network> {
        if let Some(why) = spec.misplaced() {
            bail!("network.layers: {why}");
        }
        let [height, width, channels] = input;
        let image = Shape { height, width, channels };
        let spatial = spec.layers.first().is_some_and(|layer| !matches!(layer, LayerSpec::Dense { .. }));
        let input = if spatial { image } else { Shape::flat(image.units()) };
        let mut layers: Vec<Layer> = Vec::with_capacity(spec.layers.len() + 1);
        for (index, &kind) in spec.layers.iter().enumerate() {
            let (source, shortcut) = (kind.source(index), kind.options().shortcut);
            let shape = source.map_or(input, |below| layers[below].output);
            let every = |stride, channels| Shape { height: shape.height.div_ceil(stride), width: shape.width.div_ceil(stride), channels };
            let output = match kind {
                LayerSpec::Dense { units, .. } => Shape::flat(units),
                LayerSpec::Local { channels, stride, .. } | LayerSpec::Conv { channels, stride, .. } => every(stride, channels),
                LayerSpec::AveragePool { stride, .. } | LayerSpec::MaxPool { stride, .. } => every(stride, shape.channels),
            };
            if let Some(from) = shortcut
                && layers[from].output != output
            {
                let below = layers[from].output;
                let helps = spec::adapter(from, below, output);
                bail!(
                    "network.layers[{index}].shortcut: layer {from} gives {below}, and layer {index} {output}, which cannot be added; let it \
                     come from a layer of its own, {helps}, which must stand below layer {index}"
                );
            }
            // Activities count from the input.
            let [source, shortcut] = [source, shortcut].map(|layer| layer.map(|layer| layer + 1));
            layers.push(Layer { kind, input: shape, output, source: source.unwrap_or(0), shortcut });
        }
        let units = match spec.output {
            Output::Softmax => classes,
            Output::Linear => input.units(),
        };
        // What makes the output of its pre-activation goes with the loss.
        let kind = LayerSpec::dense(units, Nonlinearity::Identity);
        let shape = layers.last().map_or(input, |below| below.output);
        layers.push(Layer { kind, input: shape, output: Shape::flat(units), source: layers.len(), shortcut: None });
        Ok(Network { input, output: spec.output, layers })
    }

    /// Layers that read activity `l` through weights, or pool it, from the lowest.
    pub fn readers(&self, l: usize) -> impl Iterator<Item = usize> {
        (0..self.depth()).filter(move |index| self.layers[*index].source == l)
    }

    /// Layers that add activity `l` to their pre-activations.
    pub fn shortcuts(&self, l: usize) -> impl Iterator<Item = usize> {
        (0..self.depth()).filter(move |index| self.layers[*index].shortcut == Some(l))
    }

    /// Number of layers, the output layer included: L of the formulas.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Layer `layer` (from 0) in a few words.
    pub fn describe(&self, layer: usize) -> String {
        let kind = self.layers[layer].kind;
        if layer + 1 == self.depth() { kind.describe_shape() } else { kind.describe() }
    }

    /// What makes activity l, of a hidden layer, out of its pre-activation.
    pub fn nonlinearity(&self, l: usize) -> Nonlinearity {
        self.layers[l - 1].kind.nonlinearity()
    }

    /// Shape of activity l: 0 is the input, `depth()` the output.
    pub fn shape(&self, l: usize) -> Shape {
        if l == 0 { self.input } else { self.layers[l - 1].output }
    }
}
