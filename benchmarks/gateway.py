"""Federation: tasks a second through the gateway, durable, with two nodes; and 1 MB results beside a bare FastAPI server.

Everything is a process of its own on this machine and goes through mutual TLS 1.3. Ours: gateway, ledger with a sync on
every commit, leases, signatures, results verified and synced to disk. The peer for 1 MB results: the same two nodes'
work sent to a bare FastAPI server that hands out numbers and throws the results away: nothing is kept, checked or
signed. The empty tasks have no peer: their target is tasks a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from fastapi import FastAPI, Request  # here, because FastAPI looks annotations up in the module

from benchmarks.measure import DISTURBED, Result, compare, triad
from manybody.testing.methods import installed, task

EMPTY, EMPTY_TARGET = 600, 100.0
LARGE, LARGE_BYTES, LARGE_TARGET = 100, 1_000_000, 0.5
ROUNDS = 3
NODES = 2


def run() -> list[Result]:
    """Both figures: empty tasks a second, and tasks returning 1 MB a second beside bare FastAPI."""
    from manybody.testing.federation import Town

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.update(installed(folder / "plugin"))
        town = stack.enter_context(Town(folder))
        town.add_nodes(*(f"node-{number}" for number in range(NODES)))
        backend = stack.enter_context(town.backend())
        peer = Bare(folder / "bare")
        stack.callback(peer.close)
        counter = iter(range(10**9))

        def rate(stage: str, count: int, **parameters: object) -> float:
            """Tasks a second, from the first submission to the last result."""
            start = time.perf_counter()
            for _ in range(count):
                number = next(counter)
                backend.submit(f"b{number}", task(stage, **parameters).model_copy(update={"seed": number}), {})
            done = sum(event.kind == "finished" for event in backend.events())
            if done != count:
                raise RuntimeError(f"expected {count} results; got {done}")
            return count / (time.perf_counter() - start)

        before = triad()
        empty = statistics.median([rate("add", EMPTY, terms=[]) for _ in range(ROUNDS + 1)][1:])
        after = triad()
        alone = Result(
            "gateway-empty-tasks",
            empty,
            None,
            None,
            "tasks/s",
            None,
            EMPTY_TARGET,
            before,
            after,
            after >= (1 - DISTURBED) * before,
        )
        large = compare(
            "gateway-1MB-results", "tasks/s", LARGE_TARGET, lambda: rate("fill", LARGE, nbytes=LARGE_BYTES),
            lambda: peer.rate(LARGE), peer.version, ROUNDS,
        )  # fmt: skip
        return [alone, large]


class Bare:
    """The peer: a FastAPI server with mutual TLS, and two processes that compute the same and send it there."""

    def __init__(self, folder: Path) -> None:
        from importlib.metadata import version

        from manybody.network.federation.authority import Authority, new_key, parse_request, pem, signing_request, write_key

        folder.mkdir()
        authority = Authority.create()
        authority.save(folder)
        for name in ("server", "member"):
            key = new_key()
            write_key(folder / f"{name}.key", key)
            asked = parse_request(signing_request(key, name))
            assert asked is not None
            signed = authority.sign_server(key, ["127.0.0.1"]) if name == "server" else authority.sign_member(asked, name)
            (folder / f"{name}.pem").write_bytes(pem(signed))
        self.folder, self.version = folder, f"FastAPI {version('fastapi')}"
        command = [sys.executable, "-m", "benchmarks.gateway", "--serve", str(folder)]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None
        self._port = int(self._server.stdout.readline())

    def rate(self, count: int) -> float:
        """Tasks a second."""
        command = [sys.executable, "-m", "benchmarks.gateway", "--work", str(self.folder), "--port", str(self._port)]
        nodes = [
            subprocess.Popen([*command, "--count", str(count // NODES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(NODES)
        ]
        for node in nodes:
            assert node.stdout is not None
            node.stdout.readline()  # ready
        start = time.perf_counter()
        for node in nodes:
            assert node.stdin is not None
            node.stdin.write("go\n")
            node.stdin.flush()
        for node in nodes:
            node.communicate()
            if node.returncode:
                raise RuntimeError(f"a bare node ended with status {node.returncode}")
        return count / (time.perf_counter() - start)

    def close(self) -> None:
        """End the server."""
        self._server.terminate()
        self._server.communicate()


def serve(folder: Path) -> None:
    """The bare server: a number to whoever asks, a result from whoever sends."""
    import socket
    import ssl

    import uvicorn

    app = FastAPI()
    numbers = iter(range(10**9))

    @app.post("/task")
    async def give() -> dict[str, int]:
        return {"number": next(numbers)}

    @app.put("/result/{number}")
    async def take(number: int, request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="error", ssl_certfile=folder / "server.pem", ssl_keyfile=str(folder / "server.key"),
        ssl_ca_certs=str(folder / "authority.pem"), ssl_cert_reqs=ssl.CERT_REQUIRED,
    )  # fmt: skip
    print(listening.getsockname()[1], flush=True)
    asyncio.run(uvicorn.Server(config).serve([listening]))


async def work(folder: Path, port: int, count: int) -> None:
    """A bare node: asks, computes, sends, one task after the other."""
    import ssl

    import aiohttp

    from manybody.store.encoding import encode
    from manybody.testing.methods import fill

    tls = ssl.create_default_context(cafile=str(folder / "authority.pem"))
    tls.load_cert_chain(folder / "member.pem", folder / "member.key")
    connector = aiohttp.TCPConnector(ssl=tls)
    async with aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=connector) as session:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(count):
            async with session.post("/task") as answer:
                number = (await answer.json())["number"]
            wanted = task("fill", nbytes=LARGE_BYTES).model_copy(update={"seed": number})
            data = encode(fill(wanted, {}, None))
            async with session.put(f"/result/{number}", data=data) as answer:
                assert (await answer.json())["bytes"] == len(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=Path, help="be the bare server, with the keys in this folder")
    parser.add_argument("--work", type=Path, help="be a bare node, with the keys in this folder")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    elif options.work:
        asyncio.run(work(options.work, options.port, options.count))
    else:
        print(json.dumps([result.__dict__ for result in run()]))
