"""The work of biodist's loader as it is done in PyTorch: random 224 x 224 crops of decoded photos, mirrored at random and standardised,
by a DataLoader with WORKERS workers and torchvision's v2 transforms. Prints images per second; compare with

    biodist bench loader --threads 2 FOLDER

usage: loader.py FOLDER [WORKERS]     FOLDER is a data set that data-prep made, of raw pixels of one shape
needs: torch, torchvision, numpy
"""
import json
import pathlib
import sys
import time

import numpy as np
import torch
from torchvision.transforms import v2

BATCH, SECONDS = 64, 10


class Photos(torch.utils.data.Dataset):
    """The shards' pixels, mapped: [H, W, C] bytes become [C, H, W] floats."""

    def __init__(self, folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        shape = manifest["shape"]
        length = int(np.prod(shape))
        self.parts = []
        for shard in manifest["shards"]:
            data = np.memmap(folder / shard["file"], mode="r", offset=64)
            self.parts.append(data[: shard["samples"] * length].reshape(-1, *shape))
        self.starts = np.cumsum([0] + [len(part) for part in self.parts])
        statistics = manifest["statistics"]
        self.transform = v2.Compose([
            v2.RandomCrop(224), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(statistics["mean"], statistics["deviation"]),
        ])

    def __len__(self):
        return int(self.starts[-1])

    def __getitem__(self, index):
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        pixels = torch.from_numpy(np.ascontiguousarray(self.parts[part][index - self.starts[part]]))
        return self.transform(pixels.permute(2, 0, 1))


def main():
    folder, workers = pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2
    torch.set_num_threads(1)
    photos = Photos(folder)
    for part in photos.parts:
        part.sum()
    loader = torch.utils.data.DataLoader(photos, batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=True)
    count, started = 0, None
    while True:
        for batch in loader:
            # The workers have started when the first batch is there.
            if started is None:
                started = time.perf_counter()
                continue
            count += len(batch)
            if time.perf_counter() - started > SECONDS:
                print(f"DataLoader, {workers} workers: {count / (time.perf_counter() - started):.0f} images/s")
                return


main()
