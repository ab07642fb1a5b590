"""The peer of the gateway: a queue behind bare FastAPI, about the least with which nodes can pull work through TLS.

The same as ours: uvicorn, TLS 1.3 with certificates on both sides, a queue in SQLite with a write-ahead log and a sync on
every commit (`synchronous=FULL`), nodes that pull by long polling, results in files, a reader that watches the queue.

What it leaves out: who a caller is and whether it may ask, leases and heartbeats, the fencing of late answers, limits on
what is read, parsing by schema, processes of their own for tasks, digests and their verification, a sync of results to
the disk, signatures, progress, the ledger's tasks, attempts and provenance. What is lost stays lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from fastapi import FastAPI, Request  # here, because FastAPI looks annotations up in the module

from benchmarks.filling import fill
from manybody.core.task import Output, Task
from manybody.store.encoding import encode

HOST = "127.0.0.1"
WAIT_S = 10.0  # how long a request for work is kept open
LOOK_S = 0.002  # between looks at the queue


class BareQueue:
    """A server and `nodes` nodes as processes, below `folder`, and the queue as who submits sees it."""

    version = f"FastAPI {version('fastapi')}"

    def __init__(self, folder: Path, nodes: int) -> None:
        folder.mkdir()
        write_keys(folder)
        (folder / "results").mkdir()
        self.database = opened(folder)
        self.database.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY, task TEXT, state TEXT DEFAULT 'waiting')")
        self.database.execute("CREATE INDEX by_state ON queue (state, id)")
        self._numbers = count(1)
        self._processes: list[subprocess.Popen[str]] = []
        port = self._start("serve", folder)
        for _ in range(nodes):
            self._start("work", folder, "--port", port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in reversed(self._processes):  # the server last
            process.terminate()
            process.communicate()
        self.database.close()

    def compute(self, tasks: list[Task]) -> int:
        """Queue tasks, each in a transaction of its own, and wait for all of them; returns how many are done."""
        mine = [next(self._numbers) for _ in tasks]
        for number, task in zip(mine, tasks, strict=True):
            self.database.execute("INSERT INTO queue (id, task) VALUES (?, ?)", (number, task.model_dump_json()))
        while self._done(mine[0]) < len(mine):
            time.sleep(LOOK_S)
        return self._done(mine[0])

    def _done(self, first: int) -> int:
        query = "SELECT count(*) FROM queue WHERE state = 'done' AND id >= ?"
        return int(self.database.execute(query, (first,)).fetchone()[0])

    def _start(self, role: str, folder: Path, *words: str) -> str:
        """Start a process; the line that it prints once it is ready."""
        command = [sys.executable, "-m", "benchmarks.bare_queue", role, str(folder), *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()


def write_keys(folder: Path) -> None:
    """An authority, and keys of the server and of a node, as ours has them."""
    from manybody.network.federation.authority import Authority, new_key, parse_request, pem, signing_request, write_key

    authority = Authority.create()
    authority.save(folder)
    for name in ("server", "node"):
        key = new_key()
        write_key(folder / f"{name}.key", key)
        asked = parse_request(signing_request(key, name))
        assert asked is not None
        signed = authority.sign_server(key, [HOST]) if name == "server" else authority.sign_member(asked, name)
        (folder / f"{name}.pem").write_bytes(pem(signed))


def opened(folder: Path) -> sqlite3.Connection:
    """The queue's database, as durable as ours."""
    connection = sqlite3.connect(folder / "queue.sqlite", timeout=30.0, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def serve(folder: Path) -> None:
    """The server: a task to whoever asks, a file for whatever is sent."""
    import socket
    import ssl

    import uvicorn

    app = FastAPI()
    database = opened(folder)

    def take() -> tuple[int, str] | None:
        query = "UPDATE queue SET state = 'leased' WHERE id = (SELECT id FROM queue WHERE state = 'waiting' ORDER BY id LIMIT 1)"
        found: tuple[int, str] | None = database.execute(f"{query} AND state = 'waiting' RETURNING id, task").fetchone()
        return found

    def is_anything_waiting() -> bool:
        return database.execute("SELECT 1 FROM queue WHERE state = 'waiting' LIMIT 1").fetchone() is not None

    @app.post("/task")
    async def give() -> dict[str, int | str]:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            if is_anything_waiting() and (found := take()):
                return {"number": found[0], "task": found[1]}
            await asyncio.sleep(LOOK_S)
        return {}

    @app.put("/result/{number}")
    async def keep(number: int, request: Request) -> dict[str, int]:
        data = await request.body()
        (folder / "results" / str(number)).write_bytes(data)
        database.execute("UPDATE queue SET state = 'done' WHERE id = ?", (number,))
        return {"bytes": len(data)}

    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # as TCP: answers are not held back
    listening.bind((HOST, 0))
    config = uvicorn.Config(
        app, log_level="error", ssl_certfile=folder / "server.pem", ssl_keyfile=str(folder / "server.key"),
        ssl_ca_certs=str(folder / "authority.pem"), ssl_cert_reqs=ssl.CERT_REQUIRED,
    )  # fmt: skip
    print(listening.getsockname()[1], flush=True)
    asyncio.run(uvicorn.Server(config).serve([listening]))


async def work(folder: Path, port: int) -> None:
    """A node: asks, computes in this process, sends, one task after the other."""
    import ssl

    import aiohttp

    tls = ssl.create_default_context(cafile=str(folder / "authority.pem"))
    tls.load_cert_chain(folder / "node.pem", folder / "node.key")
    connector = aiohttp.TCPConnector(ssl=tls)
    async with aiohttp.ClientSession(f"https://{HOST}:{port}", connector=connector) as session:
        print("ready", flush=True)
        while True:
            async with session.post("/task") as answer:
                told = await answer.json()
            if told:
                async with session.put(f"/result/{told['number']}", data=result(told["task"])) as answer:
                    await answer.read()


def result(document: str) -> bytes:
    """The bytes of a task's result."""
    return encode(Output({"bytes": fill(Task.model_validate_json(document))}))


def main() -> None:
    """Be the server, or a node."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("serve", "work"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if options.role == "serve":
            serve(options.folder)
        else:
            asyncio.run(work(options.folder, options.port))


if __name__ == "__main__":
    main()
