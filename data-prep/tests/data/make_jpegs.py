"""Writes jpegs.tar.gz: small JPEGs of every legal form, and in frames.txt what Pillow decodes each to.

needs: pillow, and cjpeg and jpegtran of libjpeg-turbo
"""
import gzip
import io
import itertools
import pathlib
import random
import subprocess
import tarfile
import tempfile
import zlib

from PIL import Image

COUNT = 1200
SIZES = [(1, 1), (1, 9), (7, 1), (8, 8), (15, 17), (16, 16), (23, 9), (33, 31), (40, 13), (17, 66)]
# What cjpeg is told of colours and sampling.
YCC = ["1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "4x2", "2x4", "3x1", "1x3", "2x2,2x1,1x2", "2x2,1x2,2x1", "2x2,2x2,1x1", "1x1,2x2,1x1",
       "1x1,2x1,2x1", "1x1,1x2,1x2", "1x1,2x2,2x2", "2x1,1x2,1x1", "1x2,2x1,1x1", "4x1,2x1,1x1"]
FORMS = ([("gray", ["-grayscale"]), ("gray", ["-grayscale", "-sample", "2x2"])]
         + [("ycc", ["-sample", sampling]) for sampling in YCC]
         + [("rgb", ["-rgb", "-sample", sampling]) for sampling in ["1x1", "2x1", "2x2", "1x1,2x2,1x1"]]
         + [(colours, subsampling) for colours in ["cmyk", "ycck"] for subsampling in range(3)])
SCANS = {1: ["", "progressive", "0: 0 0 0 1; 0: 1 63 0 2; 0: 0 0 1 0; 0: 1 63 2 1; 0: 1 63 1 0"],
         3: ["", "progressive", "0; 1; 2", "2; 0; 1", "0; 1 2", "0 1; 2",
             "0 1 2: 0 0 0 0; 0: 1 9 0 0; 1: 1 63 0 0; 2: 1 63 0 0; 0: 10 63 0 0",
             "0: 0 0 0 0; 1: 0 0 0 0; 2: 0 0 0 0; 0: 1 63 0 1; 1: 1 63 0 0; 2: 1 63 0 0; 0: 1 63 1 0"],
         4: ["", "progressive", "0; 1; 2; 3", "3; 1 2; 0", "0 1 2 3: 0 0 0 0; 0: 1 63 0 0; 1: 1 63 0 0; 2: 1 63 0 0; 3: 1 63 0 0"]}
COMPONENTS = {"gray": 1, "ycc": 3, "rgb": 3, "cmyk": 4, "ycck": 4}
RESTARTS = ["", "1", "1B", "3B"]


def main():
    chance = random.Random(1)
    combinations = [(form, scans, restart, size) for form in FORMS for scans in SCANS[COMPONENTS[form[0]]]
                    for restart, size in itertools.product(RESTARTS, SIZES)]
    frames, members = [], []
    for number, (form, scans, restart, size) in enumerate(sorted(chance.sample(combinations, COUNT), key=str)):
        jpeg = transformed(encoded(form, size, chance), scans, restart)
        image = Image.open(io.BytesIO(jpeg)).convert("RGB")
        name = f"{number:04}.jpg"
        members.append((name, jpeg))
        what = " ".join([form[0], str(form[1]), "restart " + restart, scans]).replace("\n", " ")
        frames.append(f"{name} {image.height} {image.width} {zlib.crc32(image.tobytes()):08x} {what}\n")
    members.append(("frames.txt", "".join(frames).encode()))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    path = pathlib.Path(__file__).parent / "jpegs.tar.gz"
    path.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))
    print(f"{path}: {path.stat().st_size} bytes")


def encoded(form, size, chance):
    """A picture with edges and slopes in all channels, as a JPEG in one scan."""
    colours, options = form
    channels = 4 if COMPONENTS[colours] == 4 else 3
    slopes = [(chance.uniform(-9, 9), chance.uniform(-9, 9), chance.randrange(256)) for _ in range(channels)]
    width, height = size
    pixels = bytes(int(x * across + y * down + start + 90 * ((x // 5 + y // 7) % 2)) % 256
                   for y in range(height) for x in range(width) for across, down, start in slopes)
    image = Image.frombytes("CMYK" if channels == 4 else "RGB", size, pixels)
    file = io.BytesIO()
    if channels == 3:
        image.save(file, "PPM")
        return subprocess.run(["cjpeg", "-quality", "60", *options], input=file.getvalue(), capture_output=True, check=True).stdout
    image.save(file, "JPEG", quality=60, subsampling=options)
    jpeg = bytearray(file.getvalue())
    if colours == "ycck":
        # Adobe's segment ends in how the colours are to be understood.
        jpeg[jpeg.index(b"Adobe") + 11] = 2
    return bytes(jpeg)


def transformed(jpeg, scans, restart):
    command = ["jpegtran", "-copy", "all"] + (["-restart", restart] if restart else [])
    with tempfile.NamedTemporaryFile("w") as script:
        script.write(scans + ";\n")
        script.flush()
        if scans:
            command += ["-progressive"] if scans == "progressive" else ["-scans", script.name]
        return subprocess.run(command, input=jpeg, capture_output=True, check=True).stdout


main()
