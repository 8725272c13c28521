#!/usr/bin/env python3
"""Makes a labelled set of photos from a few large ones, in the form of ImageNet's official archives and as a tree of class folders: a
class for each photo, training crops from its upper two thirds, validation crops from the rest, so that no pixel is in both.

usage: make_archives.py PHOTOS OUT [--train 100] [--val 10] [--width 500] [--height 375] [--seed 0]
needs: pillow, scipy, numpy
"""
import argparse
import io
import pathlib
import random
import tarfile

import numpy as np
import scipy.io
from PIL import Image


def crops(photo, box, count, size, numbers):
    """JPEGs of random parts of `photo` inside `box`, each shrunk by a random factor to `size`."""
    left, top, right, bottom = box
    fits = min((right - left) / size[0], (bottom - top) / size[1])
    for _ in range(count):
        factor = numbers.uniform(min(1, fits), fits)
        width, height = size[0] * factor, size[1] * factor
        x, y = numbers.uniform(left, right - width), numbers.uniform(top, bottom - height)
        part = photo.resize(size, Image.Resampling.LANCZOS, box=(x, y, x + width, y + height))
        packed = io.BytesIO()
        part.save(packed, "JPEG", quality=92)
        yield packed.getvalue()


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def devkit(path, wnids, names, truth):
    # As in the official kit, the numbers of the classes are not in the order of their WNIDs, and a parent comes last.
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
    synsets = np.zeros((len(wnids) + 1, 1), dtype=[(field, object) for field in fields])
    for number, (wnid, name) in enumerate(zip(wnids, names), 1):
        synsets[number - 1, 0] = (number, wnid, name, "a photo", 0, np.array([]), 0, 0)
    synsets[-1, 0] = (len(wnids) + 1, "n99999999", "all", "all photos", len(wnids), np.arange(1, len(wnids) + 1), 1, 0)
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets}, do_compression=True)
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        lines = "".join(f"{number}\n" for number in truth)
        add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", lines.encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    for option, default in [("train", 100), ("val", 10), ("width", 500), ("height", 375), ("seed", 0)]:
        parser.add_argument(f"--{option}", type=int, default=default)
    options = parser.parse_args()
    numbers, size = random.Random(options.seed), (options.width, options.height)
    files = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    wnids = [f"n{10000000 + 37 * place:08}" for place in range(len(files))]
    numbers.shuffle(wnids)
    options.out.mkdir(parents=True)
    validation = []
    with tarfile.open(options.out / "ILSVRC2012_img_train.tar", "w") as archive:
        for number, (path, wnid) in enumerate(zip(files, wnids), 1):
            with Image.open(path) as opened:
                photo = opened.convert("RGB")
            width, height = photo.size
            border = height * 2 // 3
            folder = options.out / "train" / wnid
            folder.mkdir(parents=True)
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as of_class:
                for place, content in enumerate(crops(photo, (0, 0, width, border), options.train, size, numbers)):
                    (folder / f"{wnid}_{place}.JPEG").write_bytes(content)
                    add(of_class, f"{wnid}_{place}.JPEG", content)
            add(archive, f"{wnid}.tar", inner.getvalue())
            validation += [(number, content) for content in crops(photo, (0, border, width, height), options.val, size, numbers)]
    numbers.shuffle(validation)
    with tarfile.open(options.out / "ILSVRC2012_img_val.tar", "w") as archive:
        for place, (_, content) in enumerate(validation, 1):
            add(archive, f"ILSVRC2012_val_{place:08}.JPEG", content)
    devkit(options.out / "ILSVRC2012_devkit_t12.tar.gz", wnids, [path.stem for path in files], [number for number, _ in validation])


main()
