//! Graphs do what operations one by one do, and streams wait for each other where they must.

use biodist::compute::cuda::{Gpu, memory_rate};
use biodist::compute::{Batch, Measure, Pixels};
use biodist::config::Config;
use biodist::observe::Doing;
use biodist::rules::Phase;

use super::stand_in::{Early, StandIn};
use super::{LAYERS, NORMALIZED, configured, learner, samples};
use crate::support::Learner;

const RULES: [&str; 8] = ["bp", "fa", "dfa", "tp", "dtp", "sdtp", "ao_sdtp", "pepita"];

/// Everything that a step leaves behind, in bits.
fn state(learner: &Learner) -> Vec<Vec<u32>> {
    let mut state = Vec::new();
    for (_, map, part) in learner.tensors() {
        for buffer in learner.buffers(map) {
            state.push(learner.engine.read(map, part, *buffer).into_iter().map(f32::to_bits).collect());
        }
    }
    for measure in Measure::ALL {
        state.push(learner.engine.measure(measure).iter().map(|value| value.to_bits()).collect());
    }
    state
}

/// Lets `to` go on where `from` is.
fn resume(from: &Learner, to: &mut Learner) {
    for (_, map, part) in from.tensors() {
        for buffer in from.buffers(map) {
            to.engine.write(map, part, *buffer, &from.engine.read(map, part, *buffer)).unwrap();
        }
    }
    to.engine.set_steps(from.engine.steps());
    to.step = from.step;
}

#[test]
fn a_graph_does_what_its_operations_do_one_by_one() {
    let normalized = ["bp", "dfa", "wm"].map(|rule| (rule, NORMALIZED));
    for (rule, layers) in RULES.map(|rule| (rule, LAYERS)).into_iter().chain(normalized) {
        let config = configured(&[layers, &format!("learning.rule={rule}")]);
        let (mut by_graph, gpu) = learner(&config, Early::All);
        for step in 0..4 {
            let (mut one_by_one, other) = learner(&config, Early::All);
            resume(&by_graph, &mut one_by_one);
            one_by_one.step();
            by_graph.step();
            assert!(state(&by_graph) == state(&one_by_one), "{rule}, step {step}");
            assert_eq!(other.replays.get(), 0);
        }
        // Two graphs a step, but for the first.
        assert_eq!(gpu.replays.get(), 6, "{rule}");
    }
}

#[test]
fn streams_wait_for_what_they_need_in_whatever_order_they_run() {
    for (rule, layers) in [("dtp", LAYERS), ("ao_sdtp", LAYERS), ("bp", NORMALIZED)] {
        for output in ["softmax", "linear"] {
            let config = configured(&[layers, &format!("learning.rule={rule}"), &format!("network.output={output}")]);
            let run = |early: Early| {
                let (mut learner, _gpu) = learner(&config, early);
                let measures: Vec<u64> = learner.steps(4).into_iter().flatten().map(f64::to_bits).collect();
                (measures, state(&learner))
            };
            let wanted = run(Early::All);
            for early in [Early::None, Early::Computing, Early::Copying] {
                assert!(run(early) == wanted, "{rule}, {output}: {early:?}");
            }
        }
    }
}

#[test]
fn a_step_computes_while_the_next_batch_comes() {
    let config = configured(&["learning.rule=bp"]);
    let (mut learner, gpu) = learner(&config, Early::Copying);
    learner.steps(3);
    gpu.log.borrow_mut().clear();
    learner.steps(2);
    let log = gpu.log.borrow();
    let position = |what: &str| log.iter().position(|entry| entry.starts_with(what)).unwrap_or_else(|| panic!("{what}: {log:?}"));
    // The updates of the step before are done later than pixels arrive, on a stream of their own.
    assert!(position("2 upload") < position("1 update"), "{log:?}");
    // Nothing but the batch is sent on that stream, and measures alone come back.
    let (own, back): (Vec<_>, Vec<_>) = log.iter().filter(|entry| entry.contains("load")).partition(|entry| entry.starts_with('2'));
    assert_eq!((own.len(), back.iter().filter(|entry| entry.contains("download")).count()), (6, 2), "{log:?}");
}

#[test]
fn alternating_phases_have_graphs_of_their_own() {
    let config = configured(&["learning.rule=sdtp", "learning.schedule=alternating"]);
    let (mut learner, gpu) = learner(&config, Early::None);
    learner.steps(8);
    // Each phase's first step is done one by one.
    assert_eq!(gpu.replays.get(), 2 * 8 - 4);
}

#[test]
fn bytes_are_scaled_on_the_gpu_to_the_floats_of_the_host() {
    let shape = samples().shape;
    let bytes: Vec<u8> = (0..8 * shape.iter().product::<usize>()).map(|i| (i * i * 31 + i * 7) as u8).collect();
    let (scale, shift) = ([0.017f32, 0.018, 0.0171], [-2.1f32, -2.03, -1.8]);
    let as_bytes = Pixels::Bytes { values: &bytes, scale: &scale, shift: &shift };
    let as_floats: Vec<f32> = bytes.iter().enumerate().map(|(i, byte)| f32::from(*byte) * scale[i % 3] + shift[i % 3]).collect();
    let dense = r#"network.layers=[{ kind = "dense", units = 18 }]"#;
    // The lowest layer reads padded rows, or a line.
    for (layers, output) in [(LAYERS, "softmax"), (dense, "softmax"), (LAYERS, "linear")] {
        let config = configured(&[layers, "learning.rule=dtp", &format!("network.output={output}")]);
        let labels: &[u32] = if output == "linear" { &[] } else { &samples().labels[..8] };
        let run = |forms: [Pixels; 4]| {
            let (mut learner, gpu) = learner(&config, Early::None);
            for (step, pixels) in forms.into_iter().enumerate() {
                let batch = Batch { pixels, labels, samples: 8, first: 0, step: step as u64 };
                learner.engine.learn(&batch, Phase::Both, 1.0).unwrap();
            }
            (state(&learner), learner.engine.output().unwrap(), gpu.page_locked_bytes())
        };
        let floats = Pixels::Floats(&as_floats);
        let wanted = run([floats; 4]);
        // A graph that was captured with one form takes the other.
        for forms in [[as_bytes; 4], [as_bytes, floats, as_bytes, floats]] {
            let found = run(forms);
            assert!((&found.0, &found.1) == (&wanted.0, &wanted.1), "{layers}, {output}");
        }
        assert_eq!(wanted.2 - run([as_bytes; 4]).2, 3 * bytes.len(), "bytes take a quarter of the page-locked memory");
    }
}

#[test]
fn evaluation_takes_smaller_batches() {
    for (rule, layers) in [("dtp", LAYERS), ("bp", NORMALIZED)] {
        evaluated(&configured(&[layers, &format!("learning.rule={rule}")]));
    }
}

/// Evaluates some batches between steps, whose parameters and running statistics they take.
fn evaluated(config: &Config) {
    let samples = samples();
    let measured = |mut learner: Learner| {
        let mut measures = Vec::new();
        for count in [8, 5, 8, 5, 5, 1] {
            learner.step();
            let pixels = &samples.pixels[..count * samples.units()];
            learner
                .engine
                .evaluate(&Batch { pixels: pixels.into(), labels: &samples.labels[..count], samples: count, first: 0, step: 0 })
                .unwrap();
            measures.push(learner.engine.measure(Measure::Loss).to_vec());
        }
        (measures, learner.engine.output().unwrap())
    };
    let ours = measured(learner(config, Early::None).0);
    let wanted = measured(Learner::new(config, &samples, 1));
    assert_eq!(ours.1.len(), wanted.1.len());
    let all = |(measures, output): &(Vec<Vec<f32>>, Vec<f32>)| measures.iter().flatten().chain(output).copied().collect::<Vec<f32>>();
    assert_eq!(ours.0.iter().map(Vec::len).collect::<Vec<_>>(), [8, 5, 8, 5, 5, 1]);
    for (ours, wanted) in all(&ours).iter().zip(all(&wanted)) {
        assert!((ours - wanted).abs() < 1e-4, "{ours} for {wanted}");
    }
}

#[test]
fn phases_are_timed_by_events_in_the_graphs() {
    let (mut learner, gpu) = learner(&configured(&["learning.rule=dtp"]), Early::All);
    let timed = |learner: &Learner| {
        let seconds = |doing| learner.engine.profile().get(doing).seconds;
        [Doing::Forward, Doing::Inverse, Doing::Noise, Doing::Output, Doing::UpdateForward, Doing::UpdateInverse].map(seconds)
    };
    learner.steps(3);
    learner.engine.reset_profile();
    learner.step();
    // A second between any two events of a stand-in: the step's graph, and that of the updates before.
    assert_eq!(timed(&learner), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    learner.engine.time_phases();
    learner.steps(3);
    learner.engine.reset_profile();
    learner.step();
    // Three layers go up and one, the dense output, comes down by its transpose; two inverses, of the second layer and the third.
    assert_eq!(timed(&learner), [4.0, 2.0, 2.0, 1.0, 4.0, 2.0]);
    // Read and written, in a second.
    assert_eq!(memory_rate(&*gpu, gpu.stream().unwrap(), 1 << 16).unwrap(), f64::from(1 << 17));
}

#[test]
fn initial_parameters_are_the_cpus() {
    for rule in RULES {
        let config = configured(&[&format!("learning.rule={rule}")]);
        let (ours, cpu) = (learner(&config, Early::All).0, Learner::new(&config, &samples(), 1));
        for (name, ..) in cpu.tensors() {
            assert_eq!(cpu.read(&name), ours.read(&name), "{rule}: {name}");
        }
    }
}

#[test]
fn a_stand_in_refuses_in_a_capture_what_cuda_refuses() {
    let gpu = StandIn::new(Early::All);
    let (stream, other) = (gpu.stream().unwrap(), gpu.stream().unwrap());
    let event = gpu.event().unwrap();
    gpu.record(event, other).unwrap();
    gpu.begin_capture(stream).unwrap();
    let refused = [
        gpu.allocate(4).err(),
        gpu.page_locked(4).err(),
        gpu.memory().err(),
        gpu.synchronize(event).err(),
        gpu.passed(event).err(),
        gpu.wait(stream, event).err(),
        gpu.begin_capture(stream).err(),
    ];
    assert!(refused.iter().all(|error| error.as_ref().is_some_and(|error| error.to_string().contains("CAPTURE"))), "{refused:?}");
}
