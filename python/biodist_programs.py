"""The programs that a wheel brings, and what starts them.

They lie in the package as `make install` lays them out. Python finds their MPI before they are started, since all that the system's
loader says without it is the name of a file. This is no part of the package, whose numpy would hold up every start.
"""

import ctypes
import os
import pathlib
import shutil
import subprocess
import sys

INSTALLED = pathlib.Path(__file__).parent / "biodist" / "installed" / "bin"
MPI = "libmpi.so.40"


def find(name):
    """The path of a program: the wheel's, else the one on PATH."""
    own = INSTALLED / name
    found = str(own) if own.exists() else shutil.which(name)
    if not found:
        raise FileNotFoundError(f"{name} is not on PATH: install biodist's wheel, or put the folder of its programs on PATH")
    return found


def starts(program):
    """Whether the loader finds all libraries; where Python finds MPI at once, nothing is started to see."""
    try:
        ctypes.CDLL(MPI)
        return True
    except OSError:
        return subprocess.run([program, "--version"], capture_output=True).returncode != 127


def run(name):
    program = find(name)
    if name == "biodist" and not starts(program):
        sys.exit(
            f"{name}: Open MPI 4 is not installed ({MPI} is missing): 'apt-get install openmpi-bin' as root on Debian and Ubuntu, "
            "'module load openmpi' on many clusters"
        )
    os.execv(program, [name, *sys.argv[1:]])


def biodist():
    run("biodist")


def biodist_launch():
    run("biodist-launch")


def data_prep():
    run("data-prep")
