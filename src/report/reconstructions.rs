//! Pictures of what autoencoders make of test images, as in the paper's Figure 7.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use biodist_process::files::read_regular;

use super::document::{Block, Content, Figure};
use super::group::Group;
use super::history::find_or_add;
use super::run::Run;
use crate::compute::Batch;
use crate::config::{Device, KernelChoice, Parallel, Precision, TransportChoice};
use crate::cpus;
use crate::data::{DataSet, Form, evenly, plain_batch};
use crate::exchange::Single;
use crate::learner::Engine;
use crate::plan::{self, DataFacts};
use crate::training::Checkpoints;

/// Images in a row.
const IMAGES: usize = 12;
/// Dots between images.
const GAP: usize = 2;
/// Width of an image on a screen, at least.
const SHOWN: usize = 56;
/// The picture of a run whose parameters are not kept, in its folder: one of an earlier report.
const KEPT: &str = "reconstructions.png";

/// A picture for each group, of its first run; where there can be none, why.
pub fn blocks(groups: &[Group]) -> Vec<Block> {
    let mut pictures = Vec::new();
    let mut missing: Vec<(String, Vec<String>)> = Vec::new();
    for group in groups.iter().filter(|group| !group.panel.classifies) {
        let run = group.runs[0];
        let kept = run.path.join(KEPT);
        let picture = if kept.is_file() { show(&kept).map(|(png, width)| (png, run.step, width)) } else { draw(run) };
        match picture {
            Err(error) => {
                let reason = format!("{error:#}");
                find_or_add(&mut missing, |(known, _)| *known == reason, || (reason.clone(), Vec::new()))
                    .1
                    .push(run.path.display().to_string());
            }
            Ok((png, step, width)) => {
                let name = format!("reconstructions-{}", pictures.len() + 1);
                let title = format!("{}: {}", group.panel.title(), group.label);
                let caption = format!(
                    "Test images (above) and what the network makes of them (below), as in Figure 7 of the paper; {}, step {step}.",
                    run.path.display()
                );
                pictures.push(Block::Figure(Figure { name, title, caption, content: Content::Png(png, width) }));
            }
        }
    }
    let apologies =
        missing.into_iter().map(|(reason, runs)| format!("There is no picture of reconstructions by {}: {reason}.", runs.join(", ")));
    pictures.into_iter().chain(apologies.map(Block::Text)).collect()
}

/// A picture that [`draw`] has made, and the width to show it at.
fn show(path: &Path) -> Result<(Vec<u8>, usize)> {
    let unread = || format!("{} cannot be read", path.display());
    let bytes = read_regular(path).with_context(unread)?;
    let width = png::Decoder::new(Cursor::new(&bytes)).read_info().with_context(unread)?.info().width as usize;
    let image = ((width + GAP) / IMAGES).saturating_sub(GAP).max(1);
    Ok((bytes, width * SHOWN.div_ceil(image)))
}

/// Test images, evenly apart so that all classes are among them, through the newest checkpoint: a PNG, the checkpoint's step, and the width to show it at.
fn draw(run: &Run) -> Result<(Vec<u8>, u64, usize)> {
    let mut config = run.config.clone();
    // A few images need neither a batch of training's size nor the machine that it was trained on.
    config.data.batch_size = IMAGES;
    config.parallel = Parallel {
        device: Device::Cpu,
        backend: TransportChoice::Auto,
        precision: Precision::F32,
        kernels: KernelChoice::Auto,
        ..config.parallel
    };
    let checkpoints = Checkpoints::of(&run.path);
    let state = checkpoints.newest()?.context("its folder has no checkpoint")?;
    let trained = state.trained(|| Ok(DataSet::open_train(&config.data, config.experiment.seed)?.0))?;
    let test = DataSet::open_test(&config.data, &trained)?.context("the configuration names no data.test")?;
    state.refuse_other_test_data(&test, "no picture is made of it")?;
    let shape = test.input_shape();
    ensure!(matches!(shape[2], 1 | 3), "images of {} channels cannot be shown", shape[2]);
    let network = plan::network(&config, &DataFacts::of_shape(shape, test.classes()))?;
    let transport = Arc::new(Single);
    let threads = cpus::take(&*transport, config.parallel.threads_per_rank)?.threads;
    let mut engine = Engine::new(&config, &network, transport.clone(), threads)?;
    checkpoints.load_model(state.step, &mut engine, &*transport)?;
    let samples = IMAGES.min(test.len());
    ensure!(samples > 0, "the test set is empty");
    let batch = plain_batch(&test, evenly(test.len(), samples), Form::Floats)?;
    engine.evaluate(&Batch { pixels: batch.input(), labels: &batch.labels, samples, first: 0, step: 0 })?;
    let output = engine.output()?;
    ensure!(output.iter().all(|value| value.is_finite()), "the network's output is not finite");
    let (png, width) = sheet(&batch.pixels, &output, samples, shape)?;
    Ok((png, state.step, width * SHOWN.div_ceil(shape[1])))
}

/// Two rows of images, [samples, height, width, channels] each, in the gray that the first one's least and greatest value span. Returns
/// the PNG and its width.
fn sheet(above: &[f32], below: &[f32], samples: usize, [height, width, channels]: [usize; 3]) -> Result<(Vec<u8>, usize)> {
    let (low, high) = above.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
    let scale = if high > low { 255.0 / (high - low) } else { 0.0 };
    let (sheet_width, sheet_height) = (samples * (width + GAP) - GAP, 2 * height + GAP);
    let mut pixels = vec![255u8; sheet_width * sheet_height * channels];
    for (row, images) in [above, below].into_iter().enumerate() {
        for (sample, image) in images.chunks_exact(height * width * channels).enumerate() {
            for (y, line) in image.chunks_exact(width * channels).enumerate() {
                let start = ((row * (height + GAP) + y) * sheet_width + sample * (width + GAP)) * channels;
                for (to, value) in pixels[start..start + line.len()].iter_mut().zip(line) {
                    *to = ((value - low) * scale).round().clamp(0.0, 255.0) as u8;
                }
            }
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, sheet_width as u32, sheet_height as u32);
    encoder.set_color(if channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok((bytes, sheet_width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_picture_is_shown_where_there_are_no_parameters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEPT);
        std::fs::write(&path, sheet(&[0.5; 12 * 49], &[0.5; 12 * 49], 12, [7, 7, 1]).unwrap().0).unwrap();
        // Eight dots for each: 12 images of 7 with gaps of 2 between.
        assert_eq!(show(&path).unwrap().1, 8 * (12 * 7 + 11 * 2));
        std::fs::write(&path, "no picture").unwrap();
        assert!(format!("{:#}", show(&path).unwrap_err()).contains("reconstructions.png cannot be read"));
    }

    #[test]
    fn images_lie_side_by_side_above_their_reconstructions() {
        // Two images of 1 x 2: 0 and 1, then 1 and 0; reconstructions beyond and between.
        let (png, width) = sheet(&[0.0, 1.0, 1.0, 0.0], &[-1.0, 2.0, 0.5, 0.0], 2, [1, 2, 1]).unwrap();
        let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width as usize, info.height), (width, 4));
        assert_eq!(pixels[..6], [0, 255, 255, 255, 255, 0]);
        assert_eq!(pixels[18..], [0, 255, 255, 255, 128, 0]);
        assert!(pixels[6..18].iter().all(|gap| *gap == 255));
    }
}
