//! What a learning rule needs of a network beside the forward maps.

/// The maps beside those of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Needs {
    pub inverses: Inverses,
    /// Trained, or fixed.
    pub inverse_plasticity: Plasticity,
    pub fields: Fields,
    pub feedback: Feedback,
    /// Fixed random features of the penultimate activity beside the output; 0 for none.
    pub auxiliary_units: usize,
    pub gains: Gains,
}

impl Needs {
    /// The forward maps alone.
    pub const NONE: Needs = Needs {
        inverses: Inverses::None,
        inverse_plasticity: Plasticity::Trained,
        fields: Fields::Larger(0),
        feedback: Feedback::None,
        auxiliary_units: 0,
        gains: Gains { forward: 1.0, inverse: 1.0, feedback: 1.0 },
    };
}

/// How many times as wide as Glorot's formula says initial weights are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gains {
    pub forward: f64,
    pub inverse: f64,
    pub feedback: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inverses {
    None,
    /// Of hidden layers but the first, which has only the input below it.
    Hidden,
    /// Of the output layer too.
    HiddenAndOutput,
}

/// What inverses of layers with kernels read; those of dense layers read everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// What the layer's kernel would, if its sides were so much larger.
    Larger(usize),
    /// Everything.
    Dense,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    None,
    /// `feedback` of each layer but the first: from its output to its input, with the layer's own sparsity.
    Layered(Plasticity),
    /// `direct_feedback` of each hidden layer: from the network's output to the layer's.
    Direct(Plasticity),
    /// `input_feedback`, fixed: from the network's output to its input.
    Input,
}

/// How the weights of a map change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plasticity {
    /// They stay as they were drawn.
    Fixed,
    /// The rule hands out updates of them.
    Trained,
    /// After every step they take the signs of the layer's weights, under magnitudes of their own.
    Signs(Magnitude),
}

/// Magnitudes of weights whose signs are another map's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Magnitude {
    /// One for all weights of a layer: the deviation of Glorot's distribution.
    Uniform,
    /// Drawn once.
    Fixed,
    /// Drawn anew for each step.
    Redrawn,
}
