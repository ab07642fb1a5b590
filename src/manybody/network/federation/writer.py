"""One writer for a gateway: what arrives while a transaction is synced to disk shares the next one (group commit)."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from manybody.core.errors import ManybodyError
from manybody.store.database import Database

T = TypeVar("T")
GROUP = 64  # changes a transaction: bounds how long the first of them waits


@dataclass(frozen=True)
class _Change:
    change: Callable[[Connection], Any]
    done: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop

    def resolve(self, value: Any, error: BaseException | None) -> None:
        """Tell the one who waits, in its own thread."""
        self.loop.call_soon_threadsafe(self._settle, value, error)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        if self.done.cancelled():
            return
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(value)


class Writer:
    """Applies changes to the ledger in order, several to a transaction; each is durable when its caller goes on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="manybody-writer", daemon=True)
        self._thread.start()

    async def do(self, change: Callable[[Connection], T]) -> T:
        """Have a change made; what it returns, once it is durable. An error undoes this change alone."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.put(_Change(change, done, loop))
        return await done

    def close(self) -> None:
        """Finish what has been asked for, then stop."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            group, last = [first], False
            while len(group) < GROUP and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    last = True
                    break
                group.append(following)
            self._apply(group)
            if last:
                return

    def _apply(self, group: list[_Change]) -> None:
        outcomes: list[tuple[_Change, Any, Exception | None]] = []
        try:
            with self._database.writing() as connection:
                for each in group:
                    try:
                        with connection.begin_nested():
                            outcomes.append((each, each.change(connection), None))
                    except ManybodyError as error:  # its own; the others of the group go on
                        outcomes.append((each, None, error))
        except Exception as error:  # noqa: BLE001 - whatever happened to the transaction, everybody who waits is told
            if len(group) > 1:  # one change must not spoil those that happened to share its transaction
                for each in group:
                    self._apply([each])
                return
            outcomes = [(each, None, error) for each in group]
        for each, value, reason in outcomes:
            each.resolve(value, reason)
