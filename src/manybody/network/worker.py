"""A worker process: ``python -m manybody.network.worker``. Computes one task at a time for the conductor that started it.

It runs installed methods only, by name, version and stage; takes inputs from the object store and leaves the result
there. It ends with its conductor: nothing is computed for somebody who is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import cast

from manybody.core import catalog
from manybody.core.errors import ManybodyError, StoreError, TaskError
from manybody.core.protocols import MethodSpec, Stage
from manybody.core.task import Output, Progress, Task
from manybody.network.gang import LostMemberError, compute_together, is_for_gang
from manybody.network.messages import Checkpointed, Failed, Finished, Progressed, Ready, Run, read_order, write
from manybody.store.objects import ObjectStore
from manybody.store.provenance import architecture, provenance

PROGRESS_INTERVAL_S = 0.2  # at most five reports a second: enough for an eye, nothing for the conductor
CHECKPOINT_SHARE = 50  # a checkpoint that takes long is taken less often: at most a fiftieth of the time goes into them
TRACEBACK_LINES = 12


class Lent:
    """What this worker lends a running task (`core.protocols.Context`).

    A checkpoint is stored with the task and the attempt that it belongs to. So no two attempts store the same object,
    and one can be removed without a look at the others. On another architecture than its own, which would compute other
    bits, a task begins anew. `earlier_s` is the time spent before the checkpoint resumed.
    """

    device = "cpu"

    def __init__(self, order: Run, channel: socket.socket, objects: ObjectStore, threads: int, checkpoint_s: float) -> None:
        self.threads = max(threads, order.task.needs.cores)
        self.resumed, self.earlier_s = False, 0.0
        self._order, self._channel, self._objects = order, channel, objects
        self._checkpoint_s = checkpoint_s
        self._start = time.monotonic()
        self._due = self._start + checkpoint_s
        self._progress, self._reported = Progress(0.0), -float("inf")

    def progress(self, progress: Progress) -> None:
        """Tell the conductor, unless it has been told just now."""
        now = time.monotonic()
        self._progress = progress
        if now - self._reported >= PROGRESS_INTERVAL_S:
            self._reported = now
            self._channel.sendall(write(Progressed(attempt=self._order.attempt, progress=plain(progress))))

    def resume(self) -> Output | None:
        """The checkpoint that came with the order; None where there is none, or none that can be used here, which is said."""
        if not self._order.checkpoint:
            return None
        try:
            found = self._objects.get(self._order.checkpoint)
        except StoreError as error:
            print(f"{self._order.task.label} begins anew: {error}", file=sys.stderr, flush=True)
            return None
        if found.document.get("checkpoint_of") != self._order.task.digest:
            raise TaskError(f"{self._order.task.label}: expected its checkpoint; {self._order.checkpoint} is something else.")
        if found.document["architecture"] != architecture(provenance()):
            print(f"{self._order.task.label} begins anew: its checkpoint is of another architecture", file=sys.stderr, flush=True)
            return None
        self.resumed, self.earlier_s = True, float(found.document["seconds"])
        return Output(found.arrays, found.document["document"])

    def forget(self) -> None:
        """Let `resume` have nothing to go on from."""
        self._order = self._order.model_copy(update={"checkpoint": ""})
        self.resumed, self.earlier_s = False, 0.0

    def keep(self, output: Output) -> None:
        """Store a checkpoint and tell the conductor, if one is due. A full disk is said, and the task goes on."""
        begin = time.monotonic()
        if self._order.checkpoint is None or begin < self._due:
            return
        seconds = self.earlier_s + begin - self._start
        whose = {
            "checkpoint_of": self._order.task.digest, "attempt": self._order.attempt, "seconds": seconds,
            "architecture": architecture(provenance()),
        }  # fmt: skip
        try:
            stored = self._objects.put(Output(output.arrays, whose | {"document": dict(output.document)}))
        except StoreError as error:
            print(f"{self._order.task.label} goes on without a checkpoint: {error}", file=sys.stderr, flush=True)
        else:
            report = Checkpointed(
                attempt=self._order.attempt, digest=stored.digest, nbytes=stored.nbytes, progress=plain(self._progress)
            )
            self._channel.sendall(write(report))
        end = time.monotonic()
        self._due = end + min(max(self._checkpoint_s, CHECKPOINT_SHARE * (end - begin)), 10 * self._checkpoint_s)


def plain(progress: Progress) -> Progress:
    """The same progress in Python's own numbers: stages hand over what numpy gives them."""
    conserved, tolerance = (None if value is None else float(value) for value in (progress.conserved, progress.tolerance))
    return Progress(float(progress.fraction), float(progress.simulated), progress.unit, conserved, tolerance)


def compute(task: Task, inputs: dict[str, Output], context: Lent) -> Output:
    """Run the stage that a task names; `TaskError` where this installation has no such method, version or stage."""
    method = cast("type[MethodSpec]", catalog.load("methods", task.method))
    if method.version != task.version:
        expected = f"expected version {task.version} of {task.method}; this node has {method.version}"
        raise TaskError(f"{task.label}: {expected}. Install the same release of the package that brings it.")
    if task.stage not in method.stages:
        raise TaskError(f"{task.label}: expected a stage of {', '.join(method.stages)}; got `{task.stage}`.")
    module, _, name = method.stages[task.stage].partition(":")
    stage = cast("Stage", getattr(import_module(module), name))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(context.threads)
    return stage(task, inputs, context)


def _compute_patiently(task: Task, inputs: dict[str, Output], lent: Lent) -> Output:
    """Run a stage; where it fails after it has gone on from a checkpoint, once more from the start: that may be to blame."""
    try:
        return compute(task, inputs, lent)
    except Exception as error:
        if not lent.resumed:
            raise
        print(f"{task.label} begins anew: from its checkpoint it failed by {type(error).__name__}: {error}", file=sys.stderr)
        lent.forget()
        return compute(task, inputs, lent)


def serve(order: Run, objects: ObjectStore, lent: Lent) -> Finished | Failed:
    """Carry out one order, whatever becomes of it."""
    start, node_fault = time.perf_counter(), False
    try:
        if is_for_gang(order.task):
            output = compute_together(order, objects, lent.progress)
        else:
            inputs = {name: objects.get(digest) for name, digest in order.inputs.items()}
            output = _compute_patiently(order.task, inputs, lent)
        if not isinstance(output, Output):
            raise TaskError(f"{order.task.label}: expected an Output; the stage gave {type(output).__name__}.")
        stored = objects.put(output)
    except LostMemberError as error:  # as if this worker had been killed, which computed through its members
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    except ManybodyError as error:
        reason, node_fault = str(error), isinstance(error, StoreError)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary to foreign code: however a task fails, its worker goes on
        lines = traceback.format_exc().splitlines()[-TRACEBACK_LINES:]
        reason = "\n".join([f"{order.task.label}: {type(error).__name__}: {error}", *lines])
    else:
        seconds = lent.earlier_s + time.perf_counter() - start
        return Finished(attempt=order.attempt, result=stored.digest, nbytes=stored.nbytes, seconds=seconds)
    reason = reason.encode(errors="replace").decode()  # a file's name in a message may be no valid text
    seconds = time.perf_counter() - start
    return Failed(attempt=order.attempt, reason=reason, seconds=seconds, node_fault=node_fault)


def end_with_conductor() -> None:
    """Let the kernel end this worker, and what it has started, when its conductor ends.

    Standard input is a pipe that only the conductor holds open and nobody writes to. The kernel signals its end
    to this process group (fcntl(2), F_SETOWN and O_ASYNC); SIGIO's default action ends a process even inside a
    compiled kernel that lets no Python thread run. PR_SET_PDEATHSIG would fire too when merely the thread that
    started the worker ends.
    """
    if sys.platform == "linux":
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(0, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


def listen(channel: socket.socket, orders: queue.SimpleQueue[Run]) -> None:
    """Pass orders on as they come; when the conductor is gone, end this process at once."""
    with channel.makefile("rb") as lines, contextlib.suppress(ConnectionResetError):  # it went with a report unread
        for line in lines:
            orders.put(read_order(line))
    os._exit(0)


def main() -> None:
    """Serve orders from the socket that was handed over, until its other end closes."""
    parser = argparse.ArgumentParser(description="A worker, started by a backend; not meant to be started by hand.")
    parser.add_argument("--socket", type=int, required=True, help="number of the inherited socket")
    parser.add_argument("--objects", type=Path, required=True, help="folder of the object store")
    parser.add_argument("--threads", type=int, required=True, help="threads that a task may use")
    parser.add_argument("--checkpoint-s", type=float, required=True, help="seconds between checkpoints of a task")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt from the terminal is the conductor's to decide on
    os.set_inheritable(options.socket, False)  # what a task starts must not hold the conductor's line open
    channel = socket.socket(fileno=options.socket)
    end_with_conductor()
    orders: queue.SimpleQueue[Run] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(channel, orders), daemon=True).start()
    objects = ObjectStore(options.objects)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the conductor is gone, `listen` ends the process
        channel.sendall(write(Ready()))
        while True:
            order = orders.get()
            lent = Lent(order, channel, objects, options.threads, options.checkpoint_s)
            channel.sendall(write(serve(order, objects, lent)))


if __name__ == "__main__":
    main()
