//! What the engine computes, against facts from elsewhere: a float64 reference's results stored as data, derivatives of a plain float64
//! network, and properties that follow from the rules' formulas.

mod connectivity;
mod diagnostics;
mod gpu;
mod gradients;
mod initialisation;
mod interchange;
mod meetings;
mod naive;
mod output;
mod properties;
#[cfg(feature = "torch")]
mod ranks;
mod reference;
mod support;
#[cfg(feature = "torch")]
mod tensors;
mod threads;
mod variants;
