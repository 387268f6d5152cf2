"""Reports on a training run: a progress bar, lines in a log, or TensorBoard."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from dian.errors import DianError

Report = Callable[[int, Any], None]
"""Called with the seed and each step of the training loop."""


@contextmanager
def reporting(name: str, tensorboard: Path | None = None) -> Iterator[Report]:
    """Yield a function that reports steps: as a bar on a terminal, elsewhere as lines.

    Parameters
    ----------
    name
        The name of the experiment.
    tensorboard
        A folder to write losses to as well, where TensorBoard reads them.
    """
    with ExitStack() as stack:
        if sys.stderr.isatty():
            reports = [stack.enter_context(_bar(name))]
        else:
            reports = [_lines(name)]
        if tensorboard is not None:
            reports.append(stack.enter_context(_tensorboard(tensorboard)))
        yield lambda seed, step: [report(seed, step) for report in reports]


@contextmanager
def _bar(name: str) -> Iterator[Report]:
    with Progress(console=Console(stderr=True)) as progress:
        tasks = defaultdict(lambda: progress.add_task(name))

        def show(seed: int, step: Any) -> None:
            what = f"{name}, seed {seed}: {_result(step)}"
            done = {"total": step.total, "completed": step.number}
            progress.update(tasks[seed], description=what, **done)

        yield show


def _lines(name: str, interval_s: float = 30.0) -> Report:
    """Print a line now and then, and one for the last step."""
    last = time.monotonic() - interval_s

    def show(seed: int, step: Any) -> None:
        nonlocal last
        if step.number < step.total and time.monotonic() - last < interval_s:
            return
        last = time.monotonic()
        done = f"step {step.number} of {step.total}, {_result(step)}"
        sys.stderr.write(f"{name}, seed {seed}: {done}\n")

    return show


def _result(step: Any) -> str:
    """Return the loss of a step, or the name of a part that is no training."""
    return f"loss {step.loss:.3f}" if hasattr(step, "loss") else step.name


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Report]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise DianError(
            "--tensorboard needs the package tensorboard, which is not installed; "
            "run: pip install tensorboard (the extra dian[tensorboard])"
        ) from None
    with SummaryWriter(folder) as writer:

        def write(seed: int, step: Any) -> None:
            if not hasattr(step, "loss"):
                return
            writer.add_scalar(f"seed {seed}/loss", step.loss, step.number)
            if (mean := step.epoch_loss) is not None:
                writer.add_scalar(f"seed {seed}/epoch loss", mean, step.epoch)

        yield write
