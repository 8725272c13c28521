//! A part of a step that is done again and again: first operation by operation, then as graphs.
//!
//! The first time each operation is waited for, so that one that fails is named, and kernels are loaded, which a capture would not bear.
//! The second time the same operations go into a graph; from then on the graph is replayed. What differs between two times lies in the
//! inbox. Where ranks bring values together on the way, one graph ends and another begins: what they do to meet stands in none.

use anyhow::Result;

use super::backend::CudaBackend;
use super::gpu::Graph;
use super::marks::Marks;
use crate::compute::Activity;

/// How ranks meet between two graphs.
pub trait Meeting {
    /// Brings all ranks' values of an activity together on the GPU of each.
    fn gather(&mut self, backend: &mut CudaBackend, activity: Activity) -> Result<()>;
}

/// A graph, and what ranks gather behind it.
type Stretch = (Graph, Option<Activity>);

#[derive(Default)]
enum State {
    #[default]
    New,
    Tried,
    Captured(Vec<Stretch>),
}

#[derive(Default)]
pub struct Part {
    state: State,
    /// Of what it does; its time is known when the GPU has done it.
    pub marks: Marks,
}

/// The way of a part's work to the GPU.
pub struct Course<'a> {
    pub backend: &'a mut CudaBackend,
    /// None where memory is planned.
    meeting: Option<&'a mut dyn Meeting>,
    /// Graphs that were captured so far, where they are.
    captured: Option<Vec<Stretch>>,
}

impl<'a> Course<'a> {
    /// Of plans alone.
    pub fn planned(backend: &'a mut CudaBackend) -> Course<'a> {
        Course { backend, meeting: None, captured: None }
    }

    /// Operation by operation.
    pub fn of_operations(backend: &'a mut CudaBackend, meeting: &'a mut dyn Meeting) -> Course<'a> {
        Course { backend, meeting: Some(meeting), captured: None }
    }

    /// Brings all ranks' values of an activity together, unless an operation has failed before.
    pub fn gather(&mut self, activity: Activity) {
        if self.backend.failed.is_none() {
            self.backend.failed = self.meet(activity).err();
        }
    }

    fn meet(&mut self, activity: Activity) -> Result<()> {
        let Some(meeting) = &mut self.meeting else {
            self.backend.plan_gathering(activity);
            return Ok(());
        };
        if self.backend.size == 1 {
            return Ok(());
        }
        let (gpu, stream) = (self.backend.gpu.clone(), self.backend.stream);
        if let Some(captured) = &mut self.captured {
            let graph = gpu.end_capture(stream)?;
            replay(graph, self.backend)?;
            captured.push((graph, Some(activity)));
        }
        meeting.gather(self.backend, activity)?;
        if self.captured.is_some() { gpu.begin_capture(stream) } else { Ok(()) }
    }
}

impl Part {
    /// Gives the GPU what `work` gives a backend. `name` is what messages call all of it.
    pub fn run(
        &mut self,
        backend: &mut CudaBackend,
        meeting: &mut dyn Meeting,
        name: &str,
        work: impl FnOnce(&mut Course) -> Result<()>,
    ) -> Result<()> {
        let (gpu, stream) = (backend.gpu.clone(), backend.stream);
        let says = format!("the graph of {name}, or what came before it");
        self.marks.edge(false, &*gpu, stream).map_err(|error| backend.explained(error))?;
        match &self.state {
            State::New => {
                backend.checked = true;
                let done = work(&mut Course::of_operations(backend, meeting));
                backend.checked = false;
                done?;
                self.state = State::Tried;
            }
            State::Tried => {
                gpu.begin_capture(stream)?;
                backend.marks = Marks::default();
                let mut course = Course { backend, meeting: Some(meeting), captured: Some(Vec::new()) };
                let given = work(&mut course);
                let graph = gpu.end_capture(stream);
                let mut captured = course.captured.take().unwrap_or_default();
                given?;
                let graph = graph.map_err(|error| backend.explained(error))?;
                self.marks.take_works(&mut backend.marks);
                backend.say(says);
                replay(graph, backend)?;
                captured.push((graph, None));
                self.state = State::Captured(captured);
            }
            State::Captured(captured) => {
                for (graph, gathered) in captured {
                    backend.say(says.clone());
                    replay(*graph, backend)?;
                    gathered.map_or(Ok(()), |activity| meeting.gather(backend, activity))?;
                }
            }
        }
        self.marks.edge(true, &*gpu, stream).map_err(|error| backend.explained(error))
    }
}

fn replay(graph: Graph, backend: &CudaBackend) -> Result<()> {
    // SAFETY: it was captured from operations on the pool and on page-locked memory, which last as long as the process.
    unsafe { backend.gpu.replay(graph, backend.stream) }.map_err(|error| backend.explained(error))
}
