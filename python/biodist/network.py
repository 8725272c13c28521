"""What a trained network computes, in numpy, and in PyTorch: docs/algorithms.md, "Networks"."""

import numpy


class Network:
    """A forward model: a call with images gives the output before the softmax.

    `numbers` is numpy or torch, whose functions have the same names where they are used here.
    """

    def __init__(self, config, trained, parameters, numbers=numpy):
        self.layers = config["network"]["layers"] + [{"kind": "dense"}]
        self.numbers = numbers
        self.input = trained["input"]
        self.parameters = parameters
        standardized = config["data"]["scaling"] == "standardize"
        channels = len(trained["statistics"]["mean"])
        # Pixels over 255, and of that the mean to take away and the deviation to divide by.
        self.mean = numpy.array(trained["statistics"]["mean"] if standardized else [0] * channels, "f4")
        self.deviation = numpy.array(trained["statistics"]["deviation"] if standardized else [1] * channels, "f4")

    def __call__(self, images):
        images = numpy.asarray(images)
        if list(images.shape[1:]) != self.input:
            raise ValueError(f"images are {list(images.shape)}, and the network takes [samples, {', '.join(map(str, self.input))}]")
        return self.forward(self.scaled(images))

    def scaled(self, images):
        """Pixels as the network sees them."""
        return (images.astype("f4") / numpy.float32(255) - self.mean) / self.deviation

    def forward(self, images):
        below = []
        for index, layer in enumerate(self.layers):
            activity = below[layer.get("from", index - 1)] if index else images
            if layer["kind"].endswith("_pool"):
                below.append(pooled(activity, layer, self.numbers))
                continue
            weight = self.parameters[f"layers.{index}.weight"]
            if layer["kind"] == "dense":
                activity = activity.reshape(len(activity), -1) @ weight.T
            else:
                # Each position has a kernel of its own, or all have one.
                kernels = "ijabcd" if layer["kind"] == "local" else "abcd"
                read = windows(activity, layer["kernel"], layer["stride"], self.numbers)
                activity = self.numbers.einsum(f"nijabc,{kernels}->nijd", read, weight)
            if "normalization" in layer:
                scale, shift = self.parameters[f"layers.{index}.normalization"]
                mean, variance = self.parameters[f"layers.{index}.statistics"]
                activity = (activity - mean) / (variance + 1e-5) ** 0.5 * scale + shift
            else:
                activity = activity + self.parameters[f"layers.{index}.bias"]
            if "shortcut" in layer:
                activity = activity + below[layer["shortcut"]]
            if index + 1 < len(self.layers):
                activity = through(layer.get("nonlinearity", "tanh"), activity, self.numbers)
            below.append(activity)
        return activity


def pooled(activity, layer, numbers):
    """Of each channel and window, what is inside the image: its mean, or its maximum."""
    read = [activity, layer["kernel"], layer["stride"], numbers]
    if layer["kind"] == "average_pool":
        inside = windows(numbers.ones_like(activity), *read[1:])
        return windows(*read).sum((3, 4)) / inside.sum((3, 4))
    read = windows(*read, outside=-numpy.inf)
    return read.max((3, 4)) if numbers is numpy else read.amax((3, 4))


def through(nonlinearity, x, numbers):
    if nonlinearity == "tanh":
        return numbers.tanh(x)
    if nonlinearity == "relu":
        return x * (x > 0)
    if nonlinearity == "leaky_relu":
        return numbers.where(x > 0, x, x * 0.01)
    if nonlinearity == "gelu":
        return x / 2 * (1 + numbers.tanh((2 / numpy.pi) ** 0.5 * (x + 0.044715 * x**3)))
    assert nonlinearity == "identity", nonlinearity
    return x


def windows(images, kernel, stride, numbers, outside=0):
    """[sample, i, j, a, b, channel]: what the weight at offset (a, b) of position (i, j) reads."""
    samples, height, width, channels = images.shape
    outputs = [-(-size // stride) for size in (height, width)]
    total = [max((output - 1) * stride + kernel - size, 0) for output, size in zip(outputs, (height, width))]
    top, left = (padding // 2 for padding in total)
    shape = (samples, height + total[0], width + total[1], channels)
    padded = numpy.full(shape, outside, images.dtype) if numbers is numpy else images.new_full(shape, outside)
    padded[:, top : top + height, left : left + width] = images
    part = [[padded[:, a:, b:][:, ::stride, ::stride][:, : outputs[0], : outputs[1]] for b in range(kernel)] for a in range(kernel)]
    return numbers.stack([numbers.stack(row, 3) for row in part], 3)


def to_torch(network):
    import torch

    class Module(torch.nn.Module):
        """Takes images [sample, height, width, channel], as pixels from 0 to 255."""

        def __init__(self):
            super().__init__()
            for name, values in network.parameters.items():
                *path, last = name.split(".")
                holder = self
                for part in path:
                    if not hasattr(holder, part):
                        holder.add_module(part, torch.nn.Module())
                    holder = getattr(holder, part)
                holder.register_parameter(last, torch.nn.Parameter(torch.tensor(numpy.array(values))))
            self.register_buffer("mean", torch.tensor(network.mean), persistent=False)
            self.register_buffer("deviation", torch.tensor(network.deviation), persistent=False)

        def forward(self, images):
            scaled = (torch.as_tensor(images).to(self.mean) / 255 - self.mean) / self.deviation
            inner = Network.__new__(Network)
            inner.layers, inner.numbers, inner.parameters = network.layers, torch, dict(self.named_parameters())
            return inner.forward(scaled)

    return Module()
