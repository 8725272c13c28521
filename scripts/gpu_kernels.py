"""What Nsight Compute says of each kernel that a program starts: one line a kernel, the one that takes longest first.

gpu_kernels.py PROGRAM ARGUMENTS...
"""

import collections
import csv
import json
import subprocess
import sys

# Few enough for one pass over each kernel: more would save and restore the GPU's memory for each of them.
TIME = "gpu__time_duration.sum"
MEMORY = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
PROCESSOR = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
# Kernels that are looked at: more than a step starts.
LAUNCHES = 800

command = ["ncu", "--csv", "--print-units", "base", "--metrics", ",".join([TIME, MEMORY, PROCESSOR])]
command += ["--launch-count", str(LAUNCHES), *sys.argv[1:]]
said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
if "ERR_NVGPUCTRPERM" in said.stdout:
    # Nothing that this project could do about it.
    print("figures: this machine lets nobody but its administrator read counters")
    sys.exit()
if said.returncode != 0:
    sys.exit(f"ncu ended with {said.returncode}: {said.stdout[-2000:]}")
# The program's own output comes before the table, and what ncu says of itself between.
lines = [line for line in said.stdout.splitlines() if line.startswith('"')]
start = next((at for at, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
values = collections.defaultdict(dict)
for row in csv.DictReader(lines[start:]):
    values[row["ID"], row["Kernel Name"]][row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
kernels = collections.defaultdict(list)
for (_, kernel), measured in values.items():
    kernels[kernel].append([measured[metric] for metric in (TIME, MEMORY, PROCESSOR)])
if not kernels:
    sys.exit("ncu has seen no kernel")
totals = []
for kernel, launches in kernels.items():
    time = sum(launch[0] for launch in launches)
    # Each launch counts by its time.
    memory, processor = (sum(launch[0] * launch[which] for launch in launches) / time for which in (1, 2))
    totals.append((time, kernel, len(launches), memory, processor))
totals.sort(reverse=True)
for time, kernel, count, memory, processor in totals:
    print(f"kernel: {kernel}: {count} times, {time / 1e6:.3f} ms, {memory:.0f} % of the memory's rate, {processor:.0f} % of the processors'")
figures = [{"kernel": kernel, "launches": count, "seconds": time / 1e9, "memory": memory, "processors": processor}
           for time, kernel, count, memory, processor in totals]
print(json.dumps({"kernels": figures}))
print(f"figures: {len(totals)} kernels, {sum(total[0] for total in totals) / 1e6:.1f} ms in all")
