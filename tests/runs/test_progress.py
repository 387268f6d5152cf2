"""Training is reported by lines where there is no terminal, and for TensorBoard."""

import sys
import types

import pytest

from dian.errors import DianError
from dian.experiments.parts import PartDone
from dian.runs.progress import reporting
from dian.training.loop import Step


def test_progress_is_lines_where_there_is_no_terminal(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with reporting("some") as show:
        for number in range(1, 8):
            clock[0] += 12.0
            show(3, Step(number, 7, 1, 1 / number))
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "some, seed 3: step 1 of 7, loss 1.000",
        "some, seed 3: step 4 of 7, loss 0.250",
        "some, seed 3: step 7 of 7, loss 0.143",
    ]


def test_a_part_that_is_no_training_is_reported_by_its_name(
    capsys, tmp_path, monkeypatch
):
    written = []
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Writer, "add_scalar", lambda self, *row: written.append(row))
    with reporting("some", tmp_path) as show:
        show(0, PartDone(2, 2, "ddim-50/1"))
    assert capsys.readouterr().err == "some, seed 0: step 2 of 2, ddim-50/1\n"
    assert written == []


class Writer:
    """Stands in for SummaryWriter of torch, which needs the package tensorboard."""

    def __init__(self, folder):
        self.folder, self.told = folder, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.told.append("closed")

    def add_scalar(self, *scalar):
        self.told.append(scalar)


def test_losses_are_written_for_tensorboard(tmp_path, monkeypatch):
    writers = []

    def summary_writer(folder):
        writers.append(Writer(folder))
        return writers[0]

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = summary_writer
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with reporting("some", tmp_path) as write:
        write(2, Step(1, 2, 1, 0.5))
        write(2, Step(2, 2, 1, 0.25, epoch_loss=0.375))
    (writer,) = writers
    assert writer.folder == tmp_path
    assert writer.told == [
        ("seed 2/loss", 0.5, 1),
        ("seed 2/loss", 0.25, 2),
        ("seed 2/epoch loss", 0.375, 1),
        "closed",
    ]


def test_without_the_package_tensorboard_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    told = r"--tensorboard needs .* run: pip install tensorboard"
    with pytest.raises(DianError, match=told), reporting("some", tmp_path):
        pass
