"""Runs a PyTorch program whose new tensors are to be on a device, and whose steps end when the device has done them.

gpu_peer.py DEVICE PRECISION PROGRAM ARGUMENTS...: the program prints "N samples/s"; the last lines printed here are its figures, as JSON and as the
table of gpu_check shows them.
"""

import contextlib
import io
import json
import re
import runpy
import sys

import torch

device, precision, program, *arguments = sys.argv[1:]
torch.set_default_device(device)
torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
step = torch.optim.Adam.step


def to_the_end(*arguments, **options):
    result = step(*arguments, **options)
    if device == "cuda":
        torch.cuda.synchronize()
    return result


torch.optim.Adam.step = to_the_end
sys.argv, said = [program, *arguments], io.StringIO()
with contextlib.redirect_stdout(said):
    runpy.run_path(program, run_name="__main__")
print(said.getvalue())
free, total = torch.cuda.mem_get_info() if device == "cuda" else (0, 0)
speed = float(re.search(r"([0-9.]+) samples/s", said.getvalue())[1])
print(json.dumps({"samples_per_second": speed, "device_memory_bytes": total - free}))
memory = f"; {(total - free) / 2**30:.1f} GiB" if total else ""
print(f"figures: {speed:.0f} samples/s{memory}")
