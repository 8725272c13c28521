//! What a person says of a network: hidden layers, and what the output is for.

use serde::{Deserialize, Serialize};

use super::Nonlinearity;
use crate::key::Default::{Is, Of, Required};
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
             `{kind = \"max_pool\", kernel, stride}`; `stride` is 1 by default, but for pools; \"conv\" and pools are for rules without \
             inverses; all but pools may have a `nonlinearity`";
    }
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
    },
    /// Locally connected: a kernel of its own at every output position.
    Local {
        kernel: usize,
        channels: usize,
        stride: usize,
        nonlinearity: Nonlinearity,
    },
    Conv {
        kernel: usize,
        channels: usize,
        stride: usize,
        nonlinearity: Nonlinearity,
    },
    /// Each channel by itself, without parameters.
    AveragePool {
        kernel: usize,
        stride: usize,
    },
    MaxPool {
        kernel: usize,
        stride: usize,
    },
}

const UNITS: Key = of_layer("units", Required, "the layer's width");
const KERNEL: Key = of_layer("kernel", Required, "the side of the receptive field");
const CHANNELS: Key = of_layer("channels", Required, "the number of output channels");
const STRIDE: Key = of_layer("stride", Is("1"), "positions from one receptive field to the next");
const POOL: &[Key] = &[KERNEL, Key { default: Required, ..STRIDE }];
const WINDOWS: &[Key] = &[KERNEL, CHANNELS, STRIDE, NONLINEARITY];

const NONLINEARITY: Key = Key {
    kind: Kind::Choice(names_of::<Nonlinearity>),
    ..of_layer("nonlinearity", Of { path: "network.nonlinearity", words: "the network's" }, "what it does to each unit's pre-activation")
};

const fn of_layer(path: &'static str, default: crate::key::Default, meaning: &'static str) -> Key {
    Key { path, kind: Kind::Size(1), default, touches: Touches::Result, meaning }
}

impl LayerSpec {
    /// Each kind of layer, with its keys.
    pub const KINDS: &'static [(&'static str, &'static [Key])] =
        &[("dense", &[UNITS, NONLINEARITY]), ("local", WINDOWS), ("conv", WINDOWS), ("average_pool", POOL), ("max_pool", POOL)];

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

    pub fn nonlinearity(&self) -> Nonlinearity {
        match *self {
            LayerSpec::Dense { nonlinearity, .. } | LayerSpec::Local { nonlinearity, .. } | LayerSpec::Conv { nonlinearity, .. } => {
                nonlinearity
            }
            LayerSpec::AveragePool { .. } | LayerSpec::MaxPool { .. } => Nonlinearity::Identity,
        }
    }

    /// In a few words: "local 5x5, 32, stride 2", and its nonlinearity where that is not the paper's.
    pub fn describe(&self) -> String {
        let shape = self.describe_shape();
        match self {
            LayerSpec::AveragePool { .. } | LayerSpec::MaxPool { .. } => shape,
            _ if self.nonlinearity() == Nonlinearity::Tanh => shape,
            _ => format!("{shape}, {}", self.nonlinearity().name()),
        }
    }

    /// The same without the nonlinearity.
    pub fn describe_shape(&self) -> String {
        let kind = self.kind();
        match self {
            LayerSpec::Dense { units, .. } => format!("{kind} {units}"),
            LayerSpec::Local { kernel, channels, stride, .. } | LayerSpec::Conv { kernel, channels, stride, .. } => {
                format!("{kind} {kernel}x{kernel}, {channels}, stride {stride}")
            }
            LayerSpec::AveragePool { kernel, stride } | LayerSpec::MaxPool { kernel, stride } => {
                format!("{kind} {kernel}x{kernel}, stride {stride}")
            }
        }
    }
}
