"""Compiles cython_core; everything else about the package is in pyproject.toml."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = "CORE_DEBUG" in os.environ
OPTIMISE = ["-O1", "-g"] if DEBUG else ["-O3"]

# The benches are compiled where they are run, and never shipped.
TOPS = ["cython_core", "engine"] + ["bench"] * ("CORE_BENCH" in os.environ)
SOURCES = sorted(str(path) for top in TOPS for path in Path(top).rglob("*.pyx"))
EXTENSIONS = [
    Extension(
        source.removesuffix(".pyx").replace("/", "."),
        [source],
        define_macros=[("CORE_DEBUG", "1")] if DEBUG else [],
        extra_compile_args=[*OPTIMISE, "-fno-strict-aliasing", "-Wno-unused-function"],
    )
    for source in SOURCES
]

# With CORE_BUILT an editable install takes the modules that are compiled in place.
setup(ext_modules=[] if "CORE_BUILT" in os.environ else cythonize(
    EXTENSIONS, annotate="CORE_ANNOTATE" in os.environ, emit_linenums=True,
    compiler_directives={"language_level": 3},
))
