"""The same work as `data-prep folder --size N`, as it is done in Python: Pillow decodes, resizes (Lanczos) and crops in PROCESSES
processes, the pixels go to one file. Prints both rates, and how far the pixels differ.

usage: photos.py DATA_PREP FOLDER [SIZE] [PROCESSES]     FOLDER holds a folder for each class
needs: pillow, numpy
"""
import json
import multiprocessing
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image


def prepare(path):
    image = Image.open(path).convert("RGB")
    width, height = image.size
    short, long = sorted((width, height))
    size = (SIZE, SIZE * long // short) if width <= height else (SIZE * long // short, SIZE)
    image = image.resize(size, Image.Resampling.LANCZOS)
    left, top = round((size[0] - SIZE) / 2), round((size[1] - SIZE) / 2)
    return image.crop((left, top, left + SIZE, top + SIZE)).tobytes()


def samples(folder):
    """Raw pixels of a prepared data set, sample after sample."""
    manifest = json.loads((folder / "manifest.json").read_text())
    length = np.prod(manifest["shape"])
    for shard in manifest["shards"]:
        data = np.memmap(folder / shard["file"], mode="r")
        for index in range(shard["samples"]):
            # A shard's header has 64 bytes.
            yield data[64 + index * length : 64 + (index + 1) * length]


def main():
    program, source = sys.argv[1], pathlib.Path(sys.argv[2])
    endings = {".jpg", ".jpeg", ".png"}
    classes = sorted(entry for entry in source.iterdir() if entry.is_dir())
    photos = [path for folder in classes for path in sorted(folder.rglob("*")) if path.suffix.lower() in endings]
    # Both find the files in memory.
    for path in photos:
        path.read_bytes()
    with tempfile.TemporaryDirectory() as temporary:
        ours, theirs = pathlib.Path(temporary) / "ours", pathlib.Path(temporary) / "theirs"
        started = time.perf_counter()
        subprocess.run(
            [program, "folder", "--images", source, "--out", ours, "--size", str(SIZE), "--threads", str(PROCESSES)],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        with multiprocessing.Pool(PROCESSES) as pool, open(theirs, "wb") as out:
            for pixels in pool.imap(prepare, photos, chunksize=8):
                out.write(pixels)
        peer_seconds = time.perf_counter() - started
        rate, peer_rate = len(photos) / seconds, len(photos) / peer_seconds
        print(f"{len(photos)} photos: data-prep {rate:.1f}/s, Pillow {peer_rate:.1f}/s, ratio {rate / peer_rate:.2f}")
        expected = np.memmap(theirs, mode="r").reshape(len(photos), -1)
        apart = [np.abs(one.astype(np.int16) - two.astype(np.int16)) for one, two in zip(samples(ours), expected, strict=True)]
        means = np.array([differences.mean() for differences in apart])
        largest = max(differences.max() for differences in apart)
        far = np.mean([np.mean(differences > 2) for differences in apart])
        print(f"pixels: mean difference {means.mean():.3f} of 255, of the worst photo {means.max():.3f}, "
              f"{100 * far:.3f}% of values differ by more than 2, at most by {largest}")


SIZE = int(sys.argv[3]) if len(sys.argv) > 3 else 256
PROCESSES = int(sys.argv[4]) if len(sys.argv) > 4 else 2

if __name__ == "__main__":
    main()
