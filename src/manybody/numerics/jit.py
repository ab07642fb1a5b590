"""The one place that compiles: the flags of every kernel, and where generated kernels are kept.

Kernels are plain Python functions that Numba compiles and keeps on disk. Generated ones are written as a module into
the cache folder, under the digest of their text, so that a later process imports them without generating anything.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, TypeVar, cast

import llvmlite.binding as llvm
import numba
import platformdirs

P = ParamSpec("P")
R = TypeVar("R")

# What lets a loop with a sum run in SIMD and use fused multiply-adds. `nnan` and `ninf` are left out on purpose:
# with them the compiler may assume that no NaN exists, and an exploded run could not be noticed.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


def _use_wide_registers() -> None:
    """Have loops use 512-bit registers where there are any: compilers prefer 256 bits for the sake of older processors.

    It also keeps them from gather instructions, which are no faster than single loads here and slower on some processors.
    Numba reads the setting once, before the first kernel is compiled.
    """
    features = llvm.get_host_cpu_features()
    if features.get("avx512f") and numba.config.CPU_FEATURES is None:
        numba.config.CPU_FEATURES = f"{features.flatten()},-prefer-256-bit,+prefer-no-gather"


_use_wide_registers()
WIDE_REGISTERS = "+avx512vl" in (numba.config.CPU_FEATURES or "")  # and instructions that press chosen lanes together


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of arrays and numbers on first use; kept on disk, free of the interpreter lock."""
    compile_ = numba.njit(cache=True, fastmath=FASTMATH, error_model="numpy", nogil=True)
    return cast("Callable[P, R]", compile_(function))


def exact_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """As `kernel`, with every operation rounded as it is written: no reordered sums, no fused multiply-adds.

    So the bits of a result do not depend on how a loop is vectorised, nor on where an element lies in its array, nor on when it
    was compiled: sums in loops that do not become SIMD gain nothing from `FASTMATH`, and two compilations of one such kernel
    have been seen to differ in the last bit.
    """
    compile_ = numba.njit(cache=True, fastmath=False, error_model="numpy", nogil=True)
    return cast("Callable[P, R]", compile_(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Splice a function into the kernels that call it, so that a number they are made with is a constant in it too.

    Such a number must not come through a kernel that another one closes over: that is compiled anew in every process.
    """
    compile_ = numba.njit(inline="always", fastmath=FASTMATH, error_model="numpy", nogil=True)
    return cast("Callable[P, R]", compile_(function))


def parallel_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """As `kernel`, with `numba.prange` loops spread over threads."""
    compile_ = numba.njit(cache=True, fastmath=FASTMATH, error_model="numpy", nogil=True, parallel=True)
    return cast("Callable[P, R]", compile_(function))


def threaded_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """As `kernel`, with `numba.prange` loops spread over threads, and nothing else: array expressions stay as they are.

    For short functions that hand stretches of work to a `kernel` each, so that its code is the same on any number of threads.
    """
    only_loops = dict.fromkeys(("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion"), False)
    compile_ = numba.njit(cache=True, error_model="numpy", nogil=True, parallel=only_loops | {"prange": True})
    return cast("Callable[P, R]", compile_(function))


def most_threads() -> int:
    """How many threads kernels may use in this process."""
    return int(numba.config.NUMBA_NUM_THREADS)


def start_threads() -> None:
    """Start the threads of threaded kernels, if they do not run yet.

    Numba starts them itself but for one case: a kernel read from the disk that was compiled while the threaded kernels
    which it calls were read from the disk, too. Calling it would end the process with a segmentation fault.
    """
    numba.get_num_threads()


def cache_folder() -> Path:
    """Where generated kernels are kept: ``$MANYBODY_CACHE/kernels``, or the user's cache folder."""
    root = os.environ.get("MANYBODY_CACHE")
    return (Path(root) if root else Path(platformdirs.user_cache_dir("manybody"))) / "kernels"


def kernel_path(digest: str) -> Path:
    """The file that holds the generated module of a digest, there or not."""
    return cache_folder() / f"kernel_{digest[:24]}.py"


def keep_source(path: Path, text: str) -> None:
    """Write a generated module once: a reader sees all of it or nothing, and the first of several writers wins.

    An existing file is left as it is, because Numba recognises its compiled code by the file's time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=path.stem, suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        try:
            os.link(part, path)
        except FileExistsError:
            return  # another process was first, with the same text
    finally:
        part.unlink()


def load_module(path: Path) -> ModuleType:
    """Import a generated module from its file, once a process."""
    name = f"manybody_generated_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"expected a Python module at {path}; got nothing that can be imported. Delete the file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Numba finds a compiled function's module by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
