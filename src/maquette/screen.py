"""The live view of training and reading in a terminal, and plain lines where there is none."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

PLAIN_EVERY = 10.0  # seconds between lines when nobody looks at a terminal


def watch(events: Iterator[Any], corpus: Any) -> bool:
    """Show training (drive.Progress events) until it ends or is stopped; True when it came to its end."""
    if os.environ.get("RANK", "0") != "0":  # of several processes one speaks
        return _finished(events)
    console = Console()
    console.print(_kept_in_mind(corpus))
    show = _live if console.is_terminal else _plain
    return show(events, console)


def _finished(events: Iterator[Any]) -> bool:
    return all("stopped" not in event.news for event in list(events))


def _kept_in_mind(corpus: Any) -> str:
    counts = corpus.facts["counts"]
    return f"{counts['train']:,} pieces to learn from, {counts['validation']:,} to choose by, {counts['test']:,} kept for the audit"


def _live(events: Iterator[Any], console: Console) -> bool:
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console
    )
    task = bar.add_task("measuring the machine", total=None)
    finished = True
    with Live(bar, console=console, refresh_per_second=4) as live:
        for event in events:
            if event.news:
                console.print(event.news)
                finished = finished and "stopped" not in event.news
            bar.update(task, description=event.stage, completed=event.step, total=event.steps)
            live.update(Group(bar, Text(_line(event))))
    return finished


def _plain(events: Iterator[Any], console: Console) -> bool:
    last, finished = 0.0, True
    for event in events:
        if event.news:
            console.print(event.news)
            finished = finished and "stopped" not in event.news
        ends = event.steps is not None and event.step >= event.steps
        if ends or (event.step and time.monotonic() - last > PLAIN_EVERY):
            last = time.monotonic()
            print(f"{event.stage} {event.step}/{event.steps or '?'}  {_line(event)}", file=sys.stdout, flush=True)
    return finished


def _line(event: Any) -> str:
    losses = "  ".join(f"{name} {value:.4g}" for name, value in list(event.logs.items())[:6])
    left = "" if event.seconds_left is None else f"  {_clock(event.seconds_left)} left"
    sheet = f"\n{event.sheet}" if event.sheet else ""
    return f"{losses}  {event.pieces_per_second:,.0f} pieces/s{left}{sheet}"


def _clock(seconds: float) -> str:
    """
    >>> _clock(75)
    '1:15'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def reading() -> Iterator[Callable[[str, int, int], None]]:
    """A function (what is being done, pieces so far, files in all) that shows itself in a terminal and stays silent elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, count, files: None
        return
    with console.status("looking") as status:
        yield lambda what, count, files: status.update(f"{what}: {count:,} pieces of {files:,} files")
