//! NCCL's operations on tensors, which it keeps until they were waited for.

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use super::Collectives;
use crate::exchange::nccl::{Calls, Element, Nccl, Piece};
use crate::exchange::{Handle, Span};

impl<C: Calls> Collectives for Nccl<C> {
    fn all_gather(&mut self, traced: Span, pairs: &[(&Tensor, &Tensor)]) -> Result<Handle> {
        let pieces = pairs.iter().map(|(own, all)| piece("an all-gather", own, all, self.size())).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<Tensor> = pairs.iter().flat_map(|(own, all)| [own.shallow_clone(), all.shallow_clone()]).collect();
        // SAFETY: the pieces are those of the tensors.
        unsafe { self.gather(traced, &pieces, Box::new(tensors)) }
    }

    fn reduce_scatter(&mut self, traced: Span, all: &Tensor, own: &Tensor) -> Result<Handle> {
        let piece = piece("a reduce-scatter", own, all, self.size())?;
        // SAFETY: the same.
        unsafe { self.scatter(traced, &[piece], Box::new([all.shallow_clone(), own.shallow_clone()])) }
    }

    fn wait(&mut self, handle: Handle) -> Result<()> {
        self.await_on_device(handle)
    }

    fn settle(&mut self) -> Result<()> {
        self.finish()
    }
}

fn piece(what: &str, own: &Tensor, all: &Tensor, size: usize) -> Result<Piece> {
    let alike = own.is_contiguous() && all.is_contiguous() && own.kind() == all.kind();
    ensure!(
        alike && own.numel() * size == all.numel(),
        "{what} of {} elements on each of {size} ranks does not fit {}",
        own.numel(),
        all.numel()
    );
    let element = match own.kind() {
        Kind::Float => Element::F32,
        Kind::BFloat16 => Element::Bf16,
        other => bail!("tensors of {other:?} are not exchanged"),
    };
    Ok(Piece { own: own.data_ptr(), all: all.data_ptr(), count: own.numel(), element })
}
