//! A part of a step that is done again and again: first operation by operation, then as one graph.
//!
//! The first time each operation is waited for, so that one that fails is named, and kernels are loaded, which a capture would not bear.
//! The second time the same operations go into a graph; from then on the graph is replayed. What differs between two times lies in the
//! inbox.

use anyhow::Result;

use super::backend::CudaBackend;
use super::gpu::Graph;
use super::marks::Marks;

#[derive(Default)]
enum State {
    #[default]
    New,
    Tried,
    Captured(Graph),
}

#[derive(Default)]
pub struct Part {
    state: State,
    /// Of what it does; its time is known when the GPU has done it.
    pub marks: Marks,
}

impl Part {
    /// Gives the GPU what `work` gives a backend. `name` is what messages call all of it.
    pub fn run(&mut self, backend: &mut CudaBackend, name: &str, work: impl FnOnce(&mut CudaBackend) -> Result<()>) -> Result<()> {
        let (gpu, stream) = (backend.gpu.clone(), backend.stream);
        self.marks.edge(false, &*gpu, stream).map_err(|error| backend.explained(error))?;
        match self.state {
            State::New => {
                backend.checked = true;
                let done = work(backend);
                backend.checked = false;
                done?;
                self.state = State::Tried;
            }
            State::Tried => {
                gpu.begin_capture(stream)?;
                backend.marks = Marks::default();
                let given = work(backend);
                let graph = gpu.end_capture(stream);
                given?;
                let graph = graph.map_err(|error| backend.explained(error))?;
                self.marks.take_works(&mut backend.marks);
                self.state = State::Captured(graph);
                self.replay(graph, backend, name)?;
            }
            State::Captured(graph) => self.replay(graph, backend, name)?,
        }
        self.marks.edge(true, &*gpu, stream).map_err(|error| backend.explained(error))
    }

    fn replay(&self, graph: Graph, backend: &CudaBackend, name: &str) -> Result<()> {
        backend.say(format!("the graph of {name}, or what came before it"));
        // SAFETY: it was captured from operations on the pool and on page-locked memory, which last as long as the process.
        unsafe { backend.gpu.replay(graph, backend.stream) }.map_err(|error| backend.explained(error))
    }
}
