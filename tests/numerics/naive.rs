//! The network once more, in float64 and as plain as it can be: sums over indices, parameters in their interchange layouts. What the
//! kernels' derivatives and inverses are compared with.

use std::collections::HashMap;

use biodist::config::{Layer as Configured, Network as Configuration, Nonlinearity, Output};

pub type Parameters = HashMap<String, Vec<f64>>;

#[derive(Clone, Copy)]
enum Kind {
    Dense,
    Window { kernel: usize, stride: usize, shared: bool },
    Pool { kernel: usize, stride: usize, max: bool },
}

/// A layer between images of (height, width, channels).
#[derive(Clone, Copy)]
struct Layer {
    kind: Kind,
    input: [usize; 3],
    output: [usize; 3],
    /// Of the layer, and of the one below, whose activity the inverse gives.
    through: Through,
    below: Through,
    /// Activities: what it reads, and what is added.
    source: usize,
    shortcut: Option<usize>,
}

type Through = fn(f64) -> f64;

pub struct Naive {
    layers: Vec<Layer>,
    linear: bool,
    /// What the output layer's inverse is given: softmax of the pre-activation, or that itself; with random features of what is below.
    pub inverts_softmax: bool,
    pub auxiliary: bool,
}

fn through(nonlinearity: Nonlinearity) -> Through {
    match nonlinearity {
        Nonlinearity::Tanh => f64::tanh,
        Nonlinearity::Relu => |a| a.max(0.0),
        Nonlinearity::LeakyRelu => |a| if a < 0.0 { a / 100.0 } else { a },
        Nonlinearity::Gelu => |a| a / (1.0 + (-(8.0 / std::f64::consts::PI).sqrt() * (a + 0.044715 * a.powi(3))).exp()),
        Nonlinearity::Identity => |a| a,
    }
}

fn units(shape: [usize; 3]) -> usize {
    shape.iter().product()
}

impl Layer {
    /// Calls `f(input unit, weight's offset without channels, output position)` wherever a window's offset lies inside the image.
    fn each_offset(&self, mut f: impl FnMut(usize, usize, usize)) {
        let (kernel, stride, shared) = match self.kind {
            Kind::Window { kernel, stride, shared } => (kernel, stride, shared),
            Kind::Pool { kernel, stride, .. } => (kernel, stride, true),
            Kind::Dense => unreachable!("a dense layer has no windows"),
        };
        let [height, width, channels] = self.input;
        let before = |size: usize, out: usize| (((out - 1) * stride + kernel) as i64 - size as i64).max(0) / 2;
        let (top, left) = (before(height, self.output[0]), before(width, self.output[1]));
        for i in 0..self.output[0] {
            for j in 0..self.output[1] {
                for a in 0..kernel {
                    for b in 0..kernel {
                        let (y, x) = ((i * stride + a) as i64 - top, (j * stride + b) as i64 - left);
                        if (0..height as i64).contains(&y) && (0..width as i64).contains(&x) {
                            let position = i * self.output[1] + j;
                            let offset = a * kernel + b + if shared { 0 } else { position * kernel * kernel };
                            f((y as usize * width + x as usize) * channels, offset, position);
                        }
                    }
                }
            }
        }
    }

    /// What a pool makes of its windows.
    fn pool(&self, x: &[f64], max: bool) -> Vec<f64> {
        let channels = self.output[2];
        let mut windows = vec![Vec::new(); units(self.output)];
        self.each_offset(|from, _, position| (0..channels).for_each(|c| windows[position * channels + c].push(x[from + c])));
        let of = |window: &Vec<f64>| {
            if max { window.iter().copied().fold(f64::MIN, f64::max) } else { window.iter().sum::<f64>() / window.len() as f64 }
        };
        windows.iter().map(of).collect()
    }

    fn affine(&self, x: &[f64], parameters: &Parameters, index: usize) -> Vec<f64> {
        if let Kind::Pool { max, .. } = self.kind {
            return self.pool(x, max);
        }
        let [weight, bias] = ["weight", "bias"].map(|what| &parameters[&format!("layers.{index}.{what}")]);
        let mut out: Vec<f64> = (0..units(self.output)).map(|unit| bias[unit % bias.len()]).collect();
        match self.kind {
            Kind::Dense => {
                for (unit, out) in out.iter_mut().enumerate() {
                    *out += x.iter().zip(&weight[unit * x.len()..]).map(|(x, w)| x * w).sum::<f64>();
                }
            }
            Kind::Window { .. } => {
                let (inputs, outputs) = (self.input[2], self.output[2]);
                self.each_offset(|from, offset, position| {
                    for c in 0..inputs {
                        for o in 0..outputs {
                            out[position * outputs + o] += x[from + c] * weight[(offset * inputs + c) * outputs + o];
                        }
                    }
                });
            }
            Kind::Pool { .. } => unreachable!("it was done above"),
        }
        out
    }

    /// `s(V y + c)` with the nonlinearity below, y having perhaps more units than the layer's output.
    fn inverse(&self, y: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let mut out: Vec<f64> = (0..units(self.input)).map(|unit| bias[unit % bias.len()]).collect();
        match self.kind {
            Kind::Dense => {
                for (unit, out) in out.iter_mut().enumerate() {
                    *out += y.iter().zip(&weight[unit * y.len()..]).map(|(y, v)| y * v).sum::<f64>();
                }
            }
            Kind::Window { kernel, .. } | Kind::Pool { kernel, .. } => {
                let shared = !matches!(self.kind, Kind::Window { shared: false, .. });
                let (inputs, outputs, offsets) = (self.input[2], self.output[2], kernel * kernel);
                self.each_offset(|to, offset, position| {
                    for o in 0..outputs {
                        for c in 0..inputs {
                            let place = if shared { 0 } else { position };
                            let at = ((place * outputs + o) * offsets + offset % offsets) * inputs + c;
                            out[to + c] += y[position * outputs + o] * weight[at];
                        }
                    }
                });
            }
        }
        out.into_iter().map(self.below).collect()
    }
}

impl Naive {
    pub fn new(image: [usize; 3], classes: usize, config: &Configuration) -> Naive {
        let mut layers: Vec<Layer> = Vec::new();
        let linear = config.output == Output::Linear;
        let top = Configured::dense(if linear { units(image) } else { classes }, Nonlinearity::Identity);
        for (index, layer) in config.layers.iter().chain([&top]).enumerate() {
            let source = layer.options().from.map_or(index, |below| below + 1);
            let shortcut = layer.options().shortcut.map(|below| below + 1);
            let (shape, below) = match source {
                0 => (image, Nonlinearity::Identity),
                _ => (layers[source - 1].output, config.layers[source - 1].nonlinearity()),
            };
            let small = |stride: usize| shape.map(|size| size.div_ceil(stride));
            let (kind, output) = match *layer {
                Configured::Dense { units, .. } => (Kind::Dense, [1, 1, units]),
                Configured::Local { kernel, channels, stride, .. } => {
                    (Kind::Window { kernel, stride, shared: false }, [small(stride)[0], small(stride)[1], channels])
                }
                Configured::Conv { kernel, channels, stride, .. } => {
                    (Kind::Window { kernel, stride, shared: true }, [small(stride)[0], small(stride)[1], channels])
                }
                Configured::AveragePool { kernel, stride, .. } => {
                    (Kind::Pool { kernel, stride, max: false }, [small(stride)[0], small(stride)[1], shape[2]])
                }
                Configured::MaxPool { kernel, stride, .. } => {
                    (Kind::Pool { kernel, stride, max: true }, [small(stride)[0], small(stride)[1], shape[2]])
                }
            };
            layers.push(Layer {
                kind,
                input: shape,
                output,
                through: through(layer.nonlinearity()),
                below: through(below),
                source,
                shortcut,
            });
        }
        Naive { layers, linear, inverts_softmax: !linear, auxiliary: false }
    }

    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// h_0 to h_{L-1} and the output's pre-activation.
    pub fn activities(&self, parameters: &Parameters, x: &[f64]) -> Vec<Vec<f64>> {
        let mut h = vec![x.to_vec()];
        for (index, layer) in self.layers.iter().enumerate() {
            let mut a = layer.affine(&h[layer.source], parameters, index);
            if let Some(below) = layer.shortcut {
                a.iter_mut().zip(&h[below]).for_each(|(a, h)| *a += h);
            }
            h.push(a.into_iter().map(layer.through).collect());
        }
        h
    }

    /// Cross-entropy, or the squared distance from the input.
    pub fn loss(&self, parameters: &Parameters, x: &[f64], label: usize) -> f64 {
        let a = self.activities(parameters, x).pop().expect("there is an output");
        if self.linear {
            return a.iter().zip(x).map(|(a, x)| (a - x).powi(2)).sum();
        }
        a.iter().map(|a| a.exp()).sum::<f64>().ln() - a[label]
    }

    /// `|| g_l(f_l(h_{l-1})) - h_{l-1} ||^2` of layer index `layer`, without noise.
    pub fn inverse_loss(&self, parameters: &Parameters, h: &[Vec<f64>], layer: usize) -> f64 {
        let mut up = h[layer + 1].clone();
        if layer + 1 == self.depth() {
            if self.inverts_softmax {
                let sum: f64 = up.iter().map(|a| a.exp()).sum();
                up.iter_mut().for_each(|a| *a = a.exp() / sum);
            }
            if self.auxiliary {
                let (weight, bias) = (&parameters["auxiliary.weight"], &parameters["auxiliary.bias"]);
                let h = &h[layer];
                up.extend(
                    bias.iter()
                        .enumerate()
                        .map(|(unit, bias)| (bias + h.iter().zip(&weight[unit * h.len()..]).map(|(h, w)| h * w).sum::<f64>()).tanh()),
                );
            }
        }
        let (weight, bias) = (&parameters[&format!("layers.{layer}.inverse.weight")], &parameters[&format!("layers.{layer}.inverse.bias")]);
        let back = self.layers[layer].inverse(&up, weight, bias);
        back.iter().zip(&h[layer]).map(|(g, h)| (g - h).powi(2)).sum()
    }
}
