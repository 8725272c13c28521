//! Where a step's time goes, by what the rank did, and the least it could take: the larger of its arithmetic at SGEMM speed and its bytes
//! at memory bandwidth.

use crate::network::Role;
use crate::observe::Doing;

/// What a pass over the weights of a map of this role is, transposed or as it is.
pub fn pass(role: Role, transposed: bool) -> Doing {
    match (role, transposed) {
        (_, true) => Doing::Transpose,
        (Role::Inverse, _) => Doing::Inverse,
        (Role::Feedback | Role::DirectFeedback, _) => Doing::Feedback,
        (Role::Forward | Role::Auxiliary | Role::Normalization | Role::Statistics, _) => Doing::Forward,
    }
}

/// What an update of a map of this role is.
pub fn update(role: Role) -> Doing {
    if role == Role::Inverse { Doing::UpdateInverse } else { Doing::UpdateForward }
}

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
    accounts: [Account; Doing::COUNT],
}

impl Profile {
    pub fn add(&mut self, doing: Doing, seconds: f64, operations: f64, bytes: f64) {
        let account = &mut self.accounts[doing as usize];
        account.seconds += seconds;
        account.operations += operations;
        account.bytes += bytes;
    }

    pub fn get(&self, doing: Doing) -> Account {
        self.accounts[doing as usize]
    }

    pub fn reset(&mut self) {
        *self = Profile::default();
    }
}
