//! What a person says of a network: hidden layers, and what the output is for.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spec {
    pub output: Output,
    /// Hidden layers, bottom up; the output layer is added by `output`.
    pub layers: Vec<LayerSpec>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// A dense layer of the class count, softmax, cross-entropy.
    Softmax,
    /// A dense layer of the input's size, squared error against the input.
    Linear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LayerSpec {
    Dense { units: usize },
    Local { kernel: usize, channels: usize, stride: usize },
    Conv { kernel: usize, channels: usize, stride: usize },
}
