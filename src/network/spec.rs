//! What a person says of a network: hidden layers, and what the output is for.

use serde::{Deserialize, Serialize};

use super::{Nonlinearity, Shape};
use crate::key::Default::{Absent, Is, Of, Required};
use crate::key::{Key, Kind, Touches, names_of, settings};

settings! {
    /// A network without the shapes that data give it.
    pub struct Spec in "network" {
        output: Output, Kind::Choice(names_of::<Output>), Is("\"softmax\""), Result,
            "\"softmax\": a dense layer for the classes is added; \"linear\": one of the input's size, which is the target (an autoencoder)";
        nonlinearity: Nonlinearity, Kind::Choice(names_of::<Nonlinearity>), Is("\"tanh\""), Result,
            "of hidden layers that name none of their own; \"gelu\" is its approximation by tanh, \"leaky_relu\" has slope 0.01 below 0";
        layers: Vec<LayerSpec>, Kind::Layers, Is("[]"), Result,
            "hidden layers from below: `{kind = \"dense\", units}`, `{kind = \"local\", kernel, channels, stride}`, \
             `{kind = \"conv\", kernel, channels, stride}`, `{kind = \"average_pool\", kernel, stride}`, \
             `{kind = \"max_pool\", kernel, stride}`; `stride` is 1 by default, but for pools; all but pools may have a `nonlinearity`, \
             `normalization = \"batch\"`, and a `shortcut`, a layer below whose output is added before the nonlinearity; `from` is the layer \
             that a layer reads where that is not the one below; layers count from 0; the keys `normalization`, `shortcut` and `from` are \
             for rules without inverses, but pepita";
    }
}

impl Spec {
    /// Why a layer cannot stand where it does, whatever the data are; None where all can.
    pub fn misplaced(&self) -> Option<String> {
        let named = |index: usize| format!("layer {index} ({})", self.layers[index].kind());
        for (index, layer) in self.layers.iter().enumerate() {
            let LayerOptions { from, shortcut, .. } = layer.options();
            for (key, below) in [("from", from), ("shortcut", shortcut)] {
                if let Some(below) = below.filter(|below| *below >= index) {
                    let wanted = if index == 0 { "the lowest reads the input" } else { "name one that stands below" };
                    return Some(format!("{} has {key} = {below}, which is no layer below it; {wanted}", named(index)));
                }
            }
            let Some(below) = layer.source(index) else { continue };
            if matches!(self.layers[below], LayerSpec::Dense { .. }) && !matches!(layer, LayerSpec::Dense { .. }) {
                let [layer, below] = [named(index), named(below)];
                return Some(format!("{layer} stands above {below}, which leaves no image to read; put dense layers last"));
            }
        }
        let is_read = |index: usize| {
            let reads = |(above, layer): (usize, &LayerSpec)| [layer.source(above), layer.options().shortcut].contains(&Some(index));
            index + 1 == self.layers.len() || self.layers.iter().enumerate().any(reads)
        };
        let unread = (0..self.layers.len()).find(|index| !is_read(*index))?;
        Some(format!("no layer reads {}; leave it out, or name it as the `from` or `shortcut` of one above", named(unread)))
    }
}

/// A layer that makes `to` of `below`, which layer `from` gives, as configurations have it.
pub(super) fn adapter(from: usize, below: Shape, to: Shape) -> String {
    let stride = below.height.div_ceil(to.height);
    let shape = match [below.height, below.width].map(|side| side.div_ceil(stride)) == [to.height, to.width] && below.positions() > 1 {
        true => format!("kind = \"conv\", kernel = 1, channels = {}, stride = {stride}", to.channels),
        false => format!("kind = \"dense\", units = {}", to.units()),
    };
    format!("{{ {shape}, from = {from}, nonlinearity = \"identity\" }}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// A dense layer of the class count, softmax, cross-entropy.
    Softmax,
    /// A dense layer of the input's size, squared error against the input.
    Linear,
}

/// What a layer is, apart from the shape that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LayerSpec {
    Dense {
        units: usize,
        nonlinearity: Nonlinearity,
        #[serde(flatten)]
        options: LayerOptions,
    },
    /// Locally connected: a kernel of its own at every output position.
    Local {
        kernel: usize,
        channels: usize,
        stride: usize,
        nonlinearity: Nonlinearity,
        #[serde(flatten)]
        options: LayerOptions,
    },
    Conv {
        kernel: usize,
        channels: usize,
        stride: usize,
        nonlinearity: Nonlinearity,
        #[serde(flatten)]
        options: LayerOptions,
    },
    /// Each channel by itself, without parameters.
    AveragePool {
        kernel: usize,
        stride: usize,
        #[serde(flatten)]
        options: LayerOptions,
    },
    MaxPool {
        kernel: usize,
        stride: usize,
        #[serde(flatten)]
        options: LayerOptions,
    },
}

/// What a layer may have beside its shape; layers are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerOptions {
    /// The layer that it reads, in the place of the one below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<usize>,
    /// The layer whose output is added to the pre-activation (He et al. 2016).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortcut: Option<usize>,
    /// What becomes of that which the weights yield, before a shortcut is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Each channel to mean 0 and variance 1 over the global batch, then by a scale and a shift that learn (Ioffe & Szegedy 2015).
    Batch,
}

impl LayerOptions {
    /// It reads the layer below, alone.
    pub const NONE: LayerOptions = LayerOptions { from: None, shortcut: None, normalization: None };
}

const UNITS: Key = of_layer("units", Required, "the layer's width");
const KERNEL: Key = of_layer("kernel", Required, "the side of the receptive field");
const CHANNELS: Key = of_layer("channels", Required, "the number of output channels");
const STRIDE: Key = of_layer("stride", Is("1"), "positions from one receptive field to the next");
const POOL: &[Key] = &[KERNEL, Key { default: Required, ..STRIDE }, FROM];
const WINDOWS: &[Key] = &[KERNEL, CHANNELS, STRIDE, NONLINEARITY, FROM, SHORTCUT, NORMALIZATION];
const NORMALIZATION: Key = Key {
    kind: Kind::Choice(names_of::<Normalization>),
    ..of_layer("normalization", Absent, "\"batch\": over the samples of all ranks, before the shortcut and the nonlinearity")
};
const FROM: Key = Key { kind: Kind::Size(0), ..of_layer("from", Absent, "the layer that it reads, counted from 0") };
const SHORTCUT: Key =
    Key { kind: Kind::Size(0), ..of_layer("shortcut", Absent, "the layer whose output is added before the nonlinearity") };

const NONLINEARITY: Key = Key {
    kind: Kind::Choice(names_of::<Nonlinearity>),
    ..of_layer("nonlinearity", Of { path: "network.nonlinearity", words: "the network's" }, "what it does to each unit's pre-activation")
};

const fn of_layer(path: &'static str, default: crate::key::Default, meaning: &'static str) -> Key {
    Key { path, kind: Kind::Size(1), default, touches: Touches::Result, meaning }
}

impl LayerSpec {
    /// Each kind of layer, with its keys.
    pub const KINDS: &'static [(&'static str, &'static [Key])] = &[
        ("dense", &[UNITS, NONLINEARITY, FROM, SHORTCUT, NORMALIZATION]),
        ("local", WINDOWS),
        ("conv", WINDOWS),
        ("average_pool", POOL),
        ("max_pool", POOL),
    ];

    /// A dense layer above the layer below.
    pub const fn dense(units: usize, nonlinearity: Nonlinearity) -> LayerSpec {
        LayerSpec::Dense { units, nonlinearity, options: LayerOptions::NONE }
    }

    /// A locally connected layer above the layer below.
    pub const fn local(kernel: usize, channels: usize, stride: usize, nonlinearity: Nonlinearity) -> LayerSpec {
        LayerSpec::Local { kernel, channels, stride, nonlinearity, options: LayerOptions::NONE }
    }

    /// As configurations name it.
    pub fn kind(&self) -> &'static str {
        match self {
            LayerSpec::Dense { .. } => "dense",
            LayerSpec::Local { .. } => "local",
            LayerSpec::Conv { .. } => "conv",
            LayerSpec::AveragePool { .. } => "average_pool",
            LayerSpec::MaxPool { .. } => "max_pool",
        }
    }

    pub fn options(&self) -> LayerOptions {
        match *self {
            LayerSpec::Dense { options, .. }
            | LayerSpec::Local { options, .. }
            | LayerSpec::Conv { options, .. }
            | LayerSpec::AveragePool { options, .. }
            | LayerSpec::MaxPool { options, .. } => options,
        }
    }

    /// The layer that it reads as layer `index`; none where that is the input.
    pub fn source(&self, index: usize) -> Option<usize> {
        self.options().from.or(index.checked_sub(1))
    }

    pub fn nonlinearity(&self) -> Nonlinearity {
        match *self {
            LayerSpec::Dense { nonlinearity, .. } | LayerSpec::Local { nonlinearity, .. } | LayerSpec::Conv { nonlinearity, .. } => {
                nonlinearity
            }
            LayerSpec::AveragePool { .. } | LayerSpec::MaxPool { .. } => Nonlinearity::Identity,
        }
    }

    /// In a few words: "local 5x5, 32, stride 2", its nonlinearity where that is not the paper's, and what it reads besides the layer below.
    pub fn describe(&self) -> String {
        let mut all = self.describe_shape();
        match self {
            LayerSpec::AveragePool { .. } | LayerSpec::MaxPool { .. } => {}
            _ if self.nonlinearity() == Nonlinearity::Tanh => {}
            _ => all += &format!(", {}", self.nonlinearity().name()),
        }
        let LayerOptions { from, shortcut, normalization } = self.options();
        normalization.into_iter().for_each(|_| all += ", batch normalization");
        from.into_iter().for_each(|layer| all += &format!(", from {layer}"));
        shortcut.into_iter().for_each(|layer| all += &format!(", shortcut {layer}"));
        all
    }

    /// The same without the nonlinearity.
    pub fn describe_shape(&self) -> String {
        let kind = self.kind();
        match self {
            LayerSpec::Dense { units, .. } => format!("{kind} {units}"),
            LayerSpec::Local { kernel, channels, stride, .. } | LayerSpec::Conv { kernel, channels, stride, .. } => {
                format!("{kind} {kernel}x{kernel}, {channels}, stride {stride}")
            }
            LayerSpec::AveragePool { kernel, stride, .. } | LayerSpec::MaxPool { kernel, stride, .. } => {
                format!("{kind} {kernel}x{kernel}, stride {stride}")
            }
        }
    }
}
