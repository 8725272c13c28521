//! Where a step's time goes, and the least it could take.

use crate::network::Role;
use crate::observe::Doing;

/// What a pass is for. A phase's floor is the larger of its arithmetic at SGEMM speed and its bytes at memory bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Load,
    Forward,
    Inverse,
    Transpose,
    Feedback,
    Noise,
    Elementwise,
    Output,
    UpdateForward,
    UpdateInverse,
    Exchange,
}

impl Phase {
    /// Of a pass over the weights of a map of this role, transposed or as it is.
    pub fn of_pass(role: Role, transposed: bool) -> Phase {
        match (role, transposed) {
            (_, true) => Phase::Transpose,
            (Role::Inverse, _) => Phase::Inverse,
            (Role::Feedback | Role::DirectFeedback, _) => Phase::Feedback,
            (Role::Forward | Role::Auxiliary, _) => Phase::Forward,
        }
    }
}

impl From<Phase> for Doing {
    fn from(phase: Phase) -> Doing {
        match phase {
            Phase::Load => Doing::Input,
            Phase::Forward => Doing::Forward,
            Phase::Inverse => Doing::Inverse,
            Phase::Transpose => Doing::Transpose,
            Phase::Feedback => Doing::Feedback,
            Phase::Noise => Doing::Noise,
            Phase::Elementwise => Doing::Elementwise,
            Phase::Output => Doing::Output,
            Phase::UpdateForward | Phase::UpdateInverse => Doing::Update,
            Phase::Exchange => Doing::Device,
        }
    }
}

pub const PHASES: [(Phase, &str); 11] = [
    (Phase::Load, "load"),
    (Phase::Forward, "forward"),
    (Phase::Inverse, "inverse"),
    (Phase::Transpose, "transpose"),
    (Phase::Feedback, "feedback"),
    (Phase::Noise, "noise"),
    (Phase::Elementwise, "elementwise"),
    (Phase::Output, "output"),
    (Phase::UpdateForward, "update_forward"),
    (Phase::UpdateInverse, "update_inverse"),
    (Phase::Exchange, "exchange"),
];

/// Sums since the last reset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    pub seconds: f64,
    /// Floating-point operations.
    pub operations: f64,
    /// Bytes that must move between memory and processor.
    pub bytes: f64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Profile {
    accounts: [Account; PHASES.len()],
}

impl Profile {
    pub fn add(&mut self, phase: Phase, seconds: f64, operations: f64, bytes: f64) {
        let account = &mut self.accounts[phase as usize];
        account.seconds += seconds;
        account.operations += operations;
        account.bytes += bytes;
    }

    pub fn get(&self, phase: Phase) -> Account {
        self.accounts[phase as usize]
    }

    pub fn reset(&mut self) {
        *self = Profile::default();
    }
}
