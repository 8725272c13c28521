//! What a layer does to its pre-activation, unit by unit.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nonlinearity {
    Tanh,
    Relu,
    LeakyRelu,
    /// The approximation by tanh: `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`.
    Gelu,
    Identity,
}

impl Nonlinearity {
    /// Slope of [`Nonlinearity::LeakyRelu`] where its argument is not above 0.
    pub const LEAK: f32 = 0.01;
    /// Factor of the cube in [`Nonlinearity::Gelu`].
    pub const CUBE: f32 = 0.044715;

    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Nonlinearity::Tanh => "tanh",
            Nonlinearity::Relu => "relu",
            Nonlinearity::LeakyRelu => "leaky_relu",
            Nonlinearity::Gelu => "gelu",
            Nonlinearity::Identity => "identity",
        }
    }

    /// Whether its slope is a function of its value. Of gelu, which falls before it rises, two arguments have one value.
    pub fn slope_follows_from_value(self) -> bool {
        self != Nonlinearity::Gelu
    }
}
