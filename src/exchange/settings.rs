//! What a configuration says of the exchange among ranks, of `[parallel]`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeChoice {
    Auto,
    Gradients,
    Activities,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportChoice {
    Auto,
    Mpi,
    Nccl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    F32,
    Bf16,
}

/// How devices of the ranks are joined, and what travels between them.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub backend: TransportChoice,
    pub overlap: bool,
    pub wire: Wire,
    /// Seconds without progress after which the job is ended.
    pub stall_timeout: f64,
}
