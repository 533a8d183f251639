"""Where the time of a run goes: waiting for data, decoding, transfer, steps."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

# Share of waiting from which something should be changed.
MUCH_WAITING = 0.05


class Times(NamedTuple):
    """Sums over a window; the difference of two is that over what lies between.

    Attributes:
        seconds: its length, without what was excluded.
        data_wait: seconds in which the loop waited for the host's batch.
        transfer: seconds until batches were on the devices, where that was measured.
        transfers: how often it was.
        decode: seconds that all threads together spent on pictures.
        decoded: pictures for which they did.
        images: pictures of the steps.
        steps: how many.
    """

    seconds: float = 0.0
    data_wait: float = 0.0
    transfer: float = 0.0
    transfers: float = 0
    decode: float = 0.0
    decoded: float = 0
    images: float = 0
    steps: float = 0

    def since(self, before: Times) -> Times:
        """What came between an earlier reading and this one."""
        return Times(*(now - then for now, then in zip(self, before, strict=True)))

    @property
    def images_per_second(self) -> float:
        """Pictures over the window's length; 0 in a window without time."""
        return self.images / self.seconds if self.seconds > 0 else 0.0

    @property
    def wait_share(self) -> float:
        """The part of the window spent waiting for data, in [0, 1].

        The devices stood still for less than that, since they have steps in store.
        """
        return min(1.0, self.data_wait / self.seconds) if self.seconds > 0 else 0.0

    def columns(self) -> dict[str, float]:
        """Means by name, in seconds.

        Returns:
            `data_wait`, of a step; `decode`, of a picture in one thread; `transfer`, of
            a batch to devices that do nothing else; `step`, all of a step but waiting
            and transfer.
        """
        steps = max(1, self.steps)
        return {
            "data_wait": self.data_wait / steps,
            "decode": self.decode / max(1, self.decoded),
            "transfer": self.transfer / max(1, self.transfers),
            "step": max(0.0, self.seconds - self.data_wait - self.transfer) / steps,
        }


class StepClock:
    """Adds up where time goes.

    Steps run asynchronously: read the clock where the loop has just waited for the
    devices, as it does to log.

    Args:
        stats: sums of what the host did: `decode_seconds` and `pictures`.
        now: seconds, from any origin, never falling.
    """

    def __init__(
        self,
        stats: Callable[[], Mapping[str, float]] = dict,
        now: Callable[[], float] = time.perf_counter,
    ):
        self._stats, self._now = stats, now
        self._start = now()
        self._excluded = 0.0
        self._sums = Times()
        self._idle = True

    def read(self) -> Times:
        """Sums since the start; the devices have nothing to do now."""
        self._idle = True
        stats = self._stats()
        return self._sums._replace(
            seconds=max(0.0, self._now() - self._start - self._excluded),
            decode=stats.get("decode_seconds", 0.0),
            decoded=stats.get("pictures", 0),
        )

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        start = self._now()
        try:
            yield
        finally:
            self._add(data_wait=self._now() - start)

    @contextlib.contextmanager
    def excluding(self) -> Iterator[None]:
        """Leaves the time inside out, as that of an evaluation."""
        start = self._now()
        try:
            yield
        finally:
            self._excluded += self._now() - start

    def moved(self, put: Callable[[Any], Any], batch: Any) -> Any:
        """`put(batch)`; the first time after each reading it is measured to its end.

        Then the devices do nothing else; later it runs beside their steps.
        """
        start = self._now()
        moved = put(batch)
        if self._idle:
            jax.block_until_ready(moved)
            self._add(transfer=self._now() - start, transfers=1)
            self._idle = False
        return moved

    def count(self, num_images: int) -> None:
        """Notes a step of `num_images` pictures."""
        self._add(images=num_images, steps=1)

    def _add(self, **more: float) -> None:
        self._sums = self._sums._replace(
            **{name: getattr(self._sums, name) + value for name, value in more.items()}
        )


def advice(cache: str, *, num_threads: int, num_cores: int, filled: bool) -> str:
    """What to change where steps wait for data.

    Args:
        cache: `config.data.cache`.
        num_threads: threads that decode.
        num_cores: cores of the host.
        filled: whether an epoch has passed, after which a cache is full.
    """
    if cache == "none":
        return "keep the pictures: config.data.cache='device', 'encoded' or 'disk'"
    if cache == "device":
        return "look for other work on this host"
    if not filled:
        return "the cache is being filled"
    if num_threads < num_cores:
        return f"raise config.data.num_threads ({num_threads} of {num_cores} cores)"
    return "config.data.cache='device' ends it, where the devices have room"
