"""Names the wheel after the system that its programs need: maturin would, but packs the programs of one crate alone, and these are of three."""

import pathlib
import platform
import re

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

PROGRAMS = list(pathlib.Path(__file__).parent.glob("biodist/installed/bin/*"))


class Wheel(bdist_wheel):
    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = not PROGRAMS

    def get_tag(self):
        if not PROGRAMS:
            return "py3", "none", "any"
        # The C library's versions that the programs' symbols ask for; the newest counts.
        minors = [int(minor) for program in PROGRAMS for minor in re.findall(rb"GLIBC_2\.(\d+)", program.read_bytes())]
        return "py3", "none", f"manylinux_2_{max(minors)}_{platform.machine()}"


setup(cmdclass={"bdist_wheel": Wheel})
