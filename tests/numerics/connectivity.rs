//! Sparsity against its definition, on an image that is padded for real.

use std::collections::BTreeSet;

use biodist::network::{Connectivity, Link, Links, Network, Shape};

/// (source, destination, block) of every weight that reads inside the image, by sliding a window over the image with its padding round it.
fn definition(height: usize, width: usize, kernel: usize, stride: usize) -> (Shape, Vec<(u32, u32, u32)>) {
    let padded = |size: usize| {
        let out = size.div_ceil(stride);
        let total = ((out as i64 - 1) * stride as i64 + kernel as i64 - size as i64).max(0) as usize;
        let mut cells = vec![None; total / 2];
        cells.extend((0..size).map(Some));
        cells.extend(vec![None; total - total / 2]);
        (out, cells)
    };
    let ((rows, vertical), (columns, horizontal)) = (padded(height), padded(width));
    let mut links = Vec::new();
    for i in 0..rows {
        for j in 0..columns {
            for (a, y) in vertical[i * stride..][..kernel].iter().enumerate() {
                for (b, x) in horizontal[j * stride..][..kernel].iter().enumerate() {
                    if let (Some(y), Some(x)) = (y, x) {
                        let destination = i * columns + j;
                        let block = (destination * kernel + a) * kernel + b;
                        links.push(((y * width + x) as u32, destination as u32, block as u32));
                    }
                }
            }
        }
    }
    (Shape { height: rows, width: columns, channels: 4 }, links)
}

fn members(links: &Links, groups: usize, key: impl Fn(&Link) -> u32) -> BTreeSet<(u32, u32, u32)> {
    let mut all = BTreeSet::new();
    for group in 0..groups {
        for link in links.of(group) {
            assert_eq!(key(link), group as u32, "a link is in its own group");
            assert!(all.insert((link.source, link.destination, link.block)), "a link is there once");
        }
    }
    all
}

fn check(connectivity: &Connectivity, expected: &BTreeSet<(u32, u32, u32)>, title: &str) {
    assert_eq!(connectivity.links(), expected.len(), "{title}");
    let by_destination = members(&connectivity.by_destination, connectivity.destinations, |link| link.destination);
    let by_source = members(&connectivity.by_source, connectivity.sources, |link| link.source);
    let by_block = members(&connectivity.by_block, connectivity.blocks, |link| link.block);
    assert!(by_destination == *expected && by_source == *expected && by_block == *expected, "{title}");
}

#[test]
fn windows_and_their_reverse_follow_the_definition() {
    for height in 1..8 {
        for width in 1..8 {
            for kernel in 1..6 {
                for stride in 1..5 {
                    let title = format!("{height}x{width}, kernel {kernel}, stride {stride}");
                    let (output, links) = definition(height, width, kernel, stride);
                    let input = Shape { height, width, channels: 3 };
                    let local = Connectivity::windows(input, output, kernel, stride, false);
                    let expected: BTreeSet<_> = links.iter().copied().collect();
                    check(&local, &expected, &title);
                    // Weights in the padding exist too.
                    assert_eq!((local.rows, local.columns), (3, 4));
                    assert_eq!(local.weights(), output.positions() * kernel * kernel * 12, "{title}");

                    let backwards = links.iter().map(|&(source, destination, block)| (destination, source, block)).collect();
                    let reversed = local.reversed();
                    check(&reversed, &backwards, &title);
                    assert_eq!((reversed.rows, reversed.columns), (4, 3));

                    let shared = Connectivity::windows(input, output, kernel, stride, true);
                    let offsets = (kernel * kernel) as u32;
                    let expected = links.iter().map(|&(source, destination, block)| (source, destination, block % offsets)).collect();
                    check(&shared, &expected, &title);
                    assert_eq!(shared.weights(), kernel * kernel * 12, "{title}");
                }
            }
        }
    }
}

#[test]
fn dense_maps_link_every_position_once() {
    let shape = Shape { height: 2, width: 3, channels: 5 };
    let down = Connectivity::dense(shape, 7);
    check(&down, &(0..6).map(|p| (p, 0, p)).collect(), "dense");
    assert_eq!((down.rows, down.columns, down.weights()), (5, 7, 210));
    let up = Connectivity::broadcast(7, shape);
    check(&up, &(0..6).map(|p| (0, p, p)).collect(), "broadcast");
    assert_eq!((up.rows, up.columns, up.weights()), (7, 5, 210));
}

#[test]
fn a_shortcut_between_shapes_is_refused_with_a_layer_that_helps() {
    let below = r#"{ kind = "conv", kernel = 3, channels = 5, nonlinearity = "relu" }"#;
    let wider = r#"kind = "conv", kernel = 3, channels = 8, stride = 2, nonlinearity = "relu""#;
    let dense = r#"kind = "dense", units = 9, nonlinearity = "relu""#;
    for layer in [wider, dense] {
        let network = |layers: &str| {
            let config = crate::support::config("flat", &[&format!("network.layers=[{layers}]")]);
            Network::new([6, 7, 3], 10, &config.network)
        };
        let refusal = network(&format!("{below}, {{ {layer}, shortcut = 0 }}")).expect_err("shapes differ").to_string();
        assert!(refusal.contains("network.layers[1].shortcut: layer 0 gives 6x7x5, and layer 1 "), "{refusal}");
        let helps = &refusal[refusal.find('{').expect("a layer is named")..=refusal.rfind('}').expect("a layer is named")];
        let helped = network(&format!("{below}, {helps}, {{ {layer}, from = 0, shortcut = 1 }}"));
        helped.unwrap_or_else(|error| panic!("{refusal}: {error}"));
    }
}
