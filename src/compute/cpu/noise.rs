//! Random numbers as a function of where they are used: Philox4x32-10 (Salmon et al. 2011) and Box-Muller.
//!
//! Nothing is drawn in sequence, so noise is the same for any number of ranks and threads, and there is no state to save. The arithmetic is
//! plain array code without fused operations: the same bits from every instruction set.

use super::elementwise::{Samples, Values};
use super::simd::{Isa, Kernel, LANES, Simd};

type Words = [u32; LANES];
type Floats = [f32; LANES];

/// What a stream of random numbers is for; streams never overlap.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// Initial parameters of the map with this index.
    Initial(usize),
    /// Noise on the activity below this layer.
    Noise(usize),
}

impl Stream {
    fn word(self) -> u32 {
        match self {
            Stream::Initial(map) => map as u32,
            Stream::Noise(layer) => 1 << 16 | layer as u32,
        }
    }
}

/// The stream of a map's weights that are drawn after `draw` steps.
pub fn stream_of_weights(map: usize, draw: u64) -> u32 {
    Stream::Initial(map).word() ^ ((draw >> 32) as u32) << 20
}

/// Ten rounds of Philox on sixteen counters, whose first words are `first`.
#[inline(always)]
fn philox(seed: u64, first: Words, rest: [u32; 3]) -> [Words; 4] {
    let mut x = [first, [rest[0]; LANES], [rest[1]; LANES], [rest[2]; LANES]];
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    for _ in 0..10 {
        let mut next = [[0u32; LANES]; 4];
        for i in 0..LANES {
            let p0 = u64::from(x[0][i]) * 0xD251_1F53;
            let p1 = u64::from(x[2][i]) * 0xCD9E_8D57;
            next[0][i] = (p1 >> 32) as u32 ^ x[1][i] ^ k0;
            next[1][i] = p1 as u32;
            next[2][i] = (p0 >> 32) as u32 ^ x[3][i] ^ k1;
            next[3][i] = p0 as u32;
        }
        x = next;
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    x
}

/// Natural logarithm of numbers in (0, 1], by Cephes' polynomial.
#[inline(always)]
fn ln(x: Floats) -> Floats {
    #[allow(clippy::excessive_precision)]
    const P: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333_1e-1,
    ];
    let mut out = [0.0; LANES];
    for i in 0..LANES {
        // A mantissa in [sqrt(1/2), sqrt(2)): subtract the bits of sqrt(1/2), round the exponent down.
        let bits = x[i].to_bits();
        let exponent = (bits.wrapping_sub(0x3f35_04f3) as i32) >> 23;
        let m = f32::from_bits(bits.wrapping_sub((exponent << 23) as u32)) - 1.0;
        let z = m * m;
        let mut p = P[0];
        for c in &P[1..] {
            p = p * m + c;
        }
        out[i] = m + (p * m * z - 0.5 * z) + exponent as f32 * std::f32::consts::LN_2;
    }
    out
}

/// Cosine and sine of 2 pi u for u in [0, 1), by Cephes' polynomials on an eighth of the circle.
#[inline(always)]
fn cos_sin(u: Floats) -> [Floats; 2] {
    let mut out = [[0.0; LANES]; 2];
    for i in 0..LANES {
        let quarters = u[i] * 4.0;
        let quadrant = (quarters + 0.5) as i32;
        let x = (quarters - quadrant as f32) * std::f32::consts::FRAC_PI_2;
        let z = x * x;
        let sine = x + x * z * ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1);
        let cosine = 1.0 - 0.5 * z + z * z * ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2);
        let odd = quadrant & 1 == 1;
        let (c, s) = if odd { (sine, cosine) } else { (cosine, sine) };
        out[0][i] = if (quadrant + 1) & 2 == 2 { -c } else { c };
        out[1][i] = if quadrant & 2 == 2 { -s } else { s };
    }
    out
}

/// Four vectors of standard normal numbers from four vectors of words.
#[inline(always)]
fn normal(words: [Words; 4]) -> [Floats; 4] {
    let mut out = [[0.0; LANES]; 4];
    for pair in 0..2 {
        let (mut u1, mut u2) = ([0.0; LANES], [0.0; LANES]);
        for i in 0..LANES {
            // (0, 1] for the logarithm, [0, 1) for the angle.
            u1[i] = ((words[2 * pair][i] >> 8) + 1) as i32 as f32 * (1.0 / 16_777_216.0);
            u2[i] = (words[2 * pair + 1][i] >> 8) as i32 as f32 * (1.0 / 16_777_216.0);
        }
        let (log, circle) = (ln(u1), cos_sin(u2));
        for i in 0..LANES {
            // The logarithm of 1 comes out exactly zero, never positive.
            let radius = (-2.0 * log[i]).max(0.0).sqrt();
            out[2 * pair][i] = radius * circle[0][i];
            out[2 * pair + 1][i] = radius * circle[1][i];
        }
    }
    out
}

#[inline(always)]
fn counters(from: u32) -> Words {
    let mut words = [0; LANES];
    for (i, word) in words.iter_mut().enumerate() {
        *word = from.wrapping_add(i as u32);
    }
    words
}

/// `destination = source + sigma * eps` for some samples of an activity [positions, batch, stride].
///
/// Vector j of a sample (positions in order, panels of 16 channels within) takes word j % 4 of counters
/// (16 (j / 4) + lane, place of the sample in the global batch, step, layer).
pub struct AddNoise {
    pub source: Values,
    pub destination: Values,
    pub samples: Samples,
    pub channels: usize,
    pub sigma: f32,
    pub place: Place,
}

impl Kernel for AddNoise {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let panels = self.channels.div_ceil(LANES);
        let (samples, draw) = (self.samples, self.place);
        let vectors = samples.positions * panels;
        let stream = draw.stream();
        for sample in samples.begin..samples.end {
            let place = (draw.first + sample) as u32;
            for group in 0..vectors.div_ceil(4) {
                let words = philox(draw.seed, counters((group * LANES) as u32), [place, draw.step as u32, stream]);
                let noise = normal(words);
                for (j, noise) in noise.iter().enumerate().take(vectors - group * 4) {
                    let (position, panel) = ((group * 4 + j) / panels, (group * 4 + j) % panels);
                    let at = samples.row(position, sample) + panel * LANES;
                    let mut noise = *noise;
                    // Lanes beyond the channels stay zero.
                    let used = (self.channels - panel * LANES).min(LANES);
                    if used < LANES {
                        noise[used..].fill(0.0);
                    }
                    unsafe {
                        let value = S::load(self.source.0.add(at)).add(S::load(noise.as_ptr()).mul(S::splat(self.sigma)));
                        value.store(self.destination.0.add(at));
                    }
                }
            }
        }
    }
}

/// Uniform numbers in (-bound, bound) at `begin..begin + out.len()` of a stream.
pub struct Uniform<'a> {
    pub out: &'a mut [f32],
    /// A multiple of 4 * LANES.
    pub begin: u64,
    pub bound: f32,
    pub seed: u64,
    pub map: usize,
    /// 0 for initial weights; for those that are drawn again, the steps before.
    pub draw: u64,
}

impl Kernel for Uniform<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let stream = stream_of_weights(self.map, self.draw);
        for (chunk, out) in self.out.chunks_mut(4 * LANES).enumerate() {
            let counter = self.begin / 4 + (chunk * LANES) as u64;
            let words = philox(self.seed, counters(counter as u32), [(counter >> 32) as u32, self.draw as u32, stream]);
            for (i, out) in out.iter_mut().enumerate() {
                let unit = ((words[i / LANES][i % LANES] >> 8) as i32 as f32 + 0.5) * (1.0 / 16_777_216.0);
                *out = (2.0 * unit - 1.0) * self.bound;
            }
        }
    }
}

/// The draw that a noise belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub seed: u64,
    pub step: u64,
    pub layer: usize,
    /// Place of the first sample in the global batch.
    pub first: usize,
}

impl Place {
    /// Word 3 of the counters.
    pub fn stream(&self) -> u32 {
        Stream::Noise(self.layer).word() ^ ((self.step >> 32) as u32) << 20
    }
}

/// Standard normal noise of an activity [positions, batch, channels] without padding: the numbers that [`AddNoise`] adds.
pub fn normals(positions: usize, batch: usize, channels: usize, place: Place) -> Vec<f32> {
    let stride = channels.next_multiple_of(LANES);
    let mut padded = vec![0.0f32; positions * batch * stride];
    let values = Values(padded.as_mut_ptr());
    let samples = Samples { positions, batch, stride, begin: 0, end: batch };
    let kernel = AddNoise { source: values, destination: values, samples, channels, sigma: 1.0, place };
    unsafe { Isa::available()[0].run(kernel) };
    padded.chunks_exact(stride).flat_map(|row| &row[..channels]).copied().collect()
}

/// The first `len` numbers of the weights of map number `map`, uniform in (-bound, bound): of the initial ones, or of another draw.
pub fn uniforms(len: usize, bound: f32, seed: u64, map: usize, draw: u64) -> Vec<f32> {
    let mut out = vec![0.0f32; len];
    unsafe { Isa::available()[0].run(Uniform { out: &mut out, begin: 0, bound, seed, map, draw }) };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_words() {
        // Known answers of the authors' Random123 library: counter and key all zero, and all ones.
        let zero = philox(0, [0; LANES], [0; 3]);
        assert_eq!([zero[0][0], zero[1][0], zero[2][0], zero[3][0]], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox(u64::MAX, [u32::MAX; LANES], [u32::MAX; 3]);
        assert_eq!([ones[0][3], ones[1][3], ones[2][3], ones[3][3]], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn logarithm_and_circle_are_accurate() {
        for k in 0..200_000u32 {
            let u = (k as f32 + 1.0) / 200_000.0;
            let log = ln([u; LANES])[0];
            assert!((f64::from(log) - f64::from(u).ln()).abs() <= 2e-7 * f64::from(u).ln().abs().max(0.1), "ln({u}) = {log}");
            let u = k as f32 / 200_000.0;
            let [c, s] = cos_sin([u; LANES]);
            let angle = std::f64::consts::TAU * f64::from(u);
            assert!((f64::from(c[0]) - angle.cos()).abs() < 2e-7 && (f64::from(s[0]) - angle.sin()).abs() < 2e-7, "at {u}");
        }
    }

    fn noise(isa: Isa, [positions, channels, stride]: [usize; 3], batch: usize, first: usize, step: u64) -> Vec<f32> {
        let mut out = vec![0.0f32; positions * batch * stride];
        let values = Values(out.as_mut_ptr());
        let (samples, place) = (Samples { positions, batch, stride, begin: 0, end: batch }, Place { seed: 7, step, layer: 3, first });
        let kernel = AddNoise { source: values, destination: values, samples, channels, sigma: 1.0, place };
        unsafe { isa.run(kernel) };
        out
    }

    #[test]
    fn noise_is_normal() {
        let all = noise(Isa::available()[0], [1, 4096, 4096], 64, 0, 5);
        let n = all.len() as f64;
        let moment = |p: i32| all.iter().map(|x| f64::from(*x).powi(p)).sum::<f64>() / n;
        assert!(moment(1).abs() < 5.0 / n.sqrt(), "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "variance {}", moment(2));
        assert!((moment(4) - 3.0).abs() < 5.0 * (96.0 / n).sqrt(), "fourth moment {}", moment(4));
        let beyond = all.iter().filter(|x| x.abs() > 1.96).count() as f64 / n;
        assert!((beyond - 0.05).abs() < 0.002, "{beyond} beyond 1.96");
        let neighbours = all.windows(2).map(|w| f64::from(w[0]) * f64::from(w[1])).sum::<f64>() / n;
        assert!(neighbours.abs() < 5.0 / n.sqrt(), "correlation of neighbours {neighbours}");
    }

    #[test]
    fn noise_depends_on_the_place_in_the_global_batch_alone() {
        let shape @ [positions, channels, stride] = [6, 20, 32];
        let whole = noise(Isa::Portable, shape, 8, 0, 9);
        for isa in Isa::available() {
            let second_half = noise(isa, shape, 4, 4, 9);
            for position in 0..positions {
                for sample in 0..4 {
                    let a = (position * 8 + sample + 4) * stride;
                    let b = (position * 4 + sample) * stride;
                    assert_eq!(whole[a..a + stride], second_half[b..b + stride]);
                    assert!(whole[a + channels..a + stride].iter().all(|x| *x == 0.0), "padding has noise");
                }
            }
        }
        assert_ne!(whole, noise(Isa::Portable, shape, 8, 0, 10));
    }
}
