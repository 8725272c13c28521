//! What a learning rule needs of a network beside the forward maps.

/// The maps beside those of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    pub inverses: Inverses,
    pub fields: Fields,
    pub feedback: Feedback,
    /// Fixed random features of the penultimate activity beside the output; 0 for none.
    pub auxiliary_units: usize,
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
    Layered,
    /// `direct_feedback` of each hidden layer: from the network's output to the layer's.
    Direct,
}
