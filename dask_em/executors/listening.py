"""Progress of a pass on a cluster: workers tell of finished batches, the waiting thread passes it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distributed import Client, get_worker

Progress = Callable[[int, int], None]

_TOPIC = "dask-em"  # one topic for all passes, as the scheduler never forgets one


class NotTheClusters(Exception):
    """Carries an error of a task, a source or a callback past those that mean a lost scheduler.

    Any of them may raise `OSError`, as a lost connection does.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error


@contextmanager
def not_the_clusters() -> Iterator[None]:
    """What goes wrong in here has nothing to do with the cluster."""
    try:
        yield
    except Exception as error:
        raise NotTheClusters(error) from None


def tell(token: str, blocks: int, rows: int) -> None:
    """Say from within a task that its batch is done."""
    get_worker().log_event(_TOPIC, {"token": token, "blocks": blocks, "rows": rows})


class Listener:
    """Hears of finished batches, and passes it on from the thread that waits.

    A pass that is begun again is told of only where it gets further than before: a batch that
    was computed twice is heard twice, and progress must not run past the end.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._token = ""
        self._blocks = self._rows = self._told_blocks = self._told_rows = 0

    def begin(self, client: Client, token: str) -> None:
        """Listen to a new attempt at the pass."""
        self._token, self._blocks, self._rows = token, 0, 0
        client.subscribe_topic(_TOPIC, self._hear)

    def end(self, client: Client) -> None:
        """Listen no more."""
        client.unsubscribe_topic(_TOPIC)

    def _hear(self, event: tuple[float, dict]) -> None:
        _, what = event
        if what["token"] == self._token:
            self._blocks += what["blocks"]
            self._rows += what["rows"]

    def pass_on(self) -> None:
        """Tell of what was heard since the last time."""
        self._tell(self._blocks, self._rows)

    def tell_rest(self, blocks: int, rows: int) -> None:
        """Tell of all that has not been told, at the end of the pass."""
        self._tell(blocks, rows)

    def _tell(self, blocks: int, rows: int) -> None:
        if blocks > self._told_blocks:
            more_blocks, more_rows = blocks - self._told_blocks, max(0, rows - self._told_rows)
            self._told_blocks, self._told_rows = blocks, max(rows, self._told_rows)
            with not_the_clusters():
                self._progress(more_blocks, more_rows)
