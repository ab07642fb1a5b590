"""Who is alive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from manybody.store.liveness import Owner, process_start


def owner_of(pid: int) -> Owner:
    started = process_start(pid)
    assert started is not None
    return Owner(Owner.this().machine, pid, started)


def test_a_process_is_alive_until_it_ends_even_before_anyone_waits_for_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = owner_of(process.pid)
        assert owner.life() == "alive"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table of processes
        assert owner.life() == "gone"
    assert owner.life() == "gone"


def test_a_stopped_process_is_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = owner_of(process.pid)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert owner.life() == "alive"
        process.kill()


def test_a_number_used_again_is_another_process() -> None:
    this = Owner.this()
    assert this.life() == "alive"
    assert Owner(this.machine, this.pid, this.started - 1).is_gone()


def test_nothing_is_known_of_another_machine() -> None:
    this = Owner.this()
    elsewhere = Owner("another-machine", this.pid, this.started)
    assert elsewhere.life() == "unknown"
    assert not elsewhere.is_gone()


def test_an_owner_reads_its_own_label_and_no_other_text() -> None:
    this = Owner.this()
    assert Owner.parse(this.label) == this
    assert [Owner.parse(text) for text in ("", "a.b.c", "host.12", "host.12.13.14")] == [None] * 4
