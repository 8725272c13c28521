"""Safetensors files of float32: a length, a header of JSON, and the values. https://github.com/huggingface/safetensors has the format."""

import json
import struct

import numpy


def load(path):
    """The tensors of a file: numpy arrays by name, which are mapped from it and copied when they are changed."""
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] != "F32":
            raise ValueError(f"{path}: {name} is {entry['dtype']}, not F32")
        # Mapping nothing at all is an error.
        if 0 in entry["shape"]:
            tensors[name] = numpy.zeros(entry["shape"], "<f4")
        else:
            offset = 8 + length + entry["data_offsets"][0]
            tensors[name] = numpy.memmap(path, "<f4", "c", offset, tuple(entry["shape"]) or (1,)).reshape(entry["shape"])
    return tensors


def save(path, tensors):
    """Writes float32 arrays by name."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, values in tensors.items():
        if values.dtype != "<f4":
            raise TypeError(f"{name} is {values.dtype}, not float32")
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(values.tobytes())
