"""A record is refused unless every byte is as written; it is stale when code moved."""

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as to_bytes

from dian.errors import DianError
from dian.runs import record as records

NAME = "rnn-fashion-mnist"
FILES = ("record.json", "arrays.safetensors", "weights.safetensors")


@pytest.fixture
def folder(tmp_path):
    """A copy of the real record, to be damaged."""
    shutil.copytree(records.FOLDER / NAME, tmp_path / NAME)
    return tmp_path


def edit(folder, **fields):
    """Change fields as a person with an editor would."""
    path = folder / NAME / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rewrite(folder, **fields):
    """Change fields and mend the checksum, as a fault in our own code would."""
    content = json.loads((folder / NAME / "record.json").read_text()) | fields
    content["checksum"] = records.checksum(content)
    (folder / NAME / "record.json").write_bytes(records._text(content))


def test_the_copy_is_intact(folder):
    record = records.load(NAME, folder)
    assert record.content == records.load(NAME).content
    assert records.names(folder) == [NAME]


def test_every_digit_counts(folder):
    """Change each number of a few hundred in turn: always refused, always named."""
    path = folder / NAME / "record.json"
    text = path.read_text()
    digits = [m.start() for m in re.finditer(r"(?<=\.\d\d\d)\d", text)]
    assert len(digits) > 100
    for at in digits:
        path.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}")
        with pytest.raises(DianError, match=f"record {NAME}: .*changed by hand"):
            records.load(NAME, folder)


@pytest.mark.parametrize("file", ["arrays.safetensors", "weights.safetensors"])
def test_every_bit_beside_it_counts(folder, file, generator):
    path = folder / NAME / file
    content = bytearray(path.read_bytes())
    for at in np.linspace(0, len(content) - 1, 60, dtype=int):
        content[at] ^= 1 << (at % 8)
        path.write_bytes(content)
        with pytest.raises(DianError, match=rf"{file}: expected SHA-256"):
            records.load(NAME, folder)
        content[at] ^= 1 << (at % 8)
    path.write_bytes(content)
    records.load(NAME, folder)


@pytest.mark.parametrize("file", ["arrays.safetensors", "weights.safetensors"])
def test_a_missing_file_is_named(folder, file):
    (folder / NAME / file).unlink()
    with pytest.raises(DianError, match=f"{file}: no such file; restore it with git"):
        records.load(NAME, folder)


def test_a_file_is_verified_when_it_is_used_too(folder):
    record = records.load(NAME, folder)
    (folder / NAME / "weights.safetensors").write_bytes(b"")
    with pytest.raises(DianError, match=r"weights\.safetensors"):
        _ = record.weights


@pytest.mark.parametrize("file", FILES)
def test_a_record_cut_at_any_kilobyte_is_refused(folder, file):
    path = folder / NAME / file
    whole = path.read_bytes()
    for cut in (0, 1, *range(1024, len(whole), 1024), len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DianError, match=rf"{file}") as refused:
            records.load(NAME, folder)
        assert "\n" not in str(refused.value)


def test_three_hundred_flipped_bits_are_refused(folder):
    """Anywhere in the three files: even where the number read would be the same."""
    whole = {file: (folder / NAME / file).read_bytes() for file in FILES}
    bits = [(file, at) for file in FILES for at in range(8 * len(whole[file]))]
    for file, at in random.Random(0).sample(bits, 300):
        flipped = bytearray(whole[file])
        flipped[at // 8] ^= 1 << at % 8
        (folder / NAME / file).write_bytes(flipped)
        with pytest.raises(DianError, match=rf"{file}|record {NAME}: ") as refused:
            records.load(NAME, folder)
        assert "\n" not in str(refused.value)
        (folder / NAME / file).write_bytes(whole[file])
    records.load(NAME, folder)


def test_another_spelling_of_the_same_number_is_refused(folder):
    """One flipped bit makes E of the e in 1e-05."""
    path = folder / NAME / "record.json"
    rewrite(folder, seconds=1e-05)
    records.load(NAME, folder)
    text = path.read_text()
    path.write_text(text.replace('"seconds": 1e-05', '"seconds": 1E-05'))
    assert path.read_text() != text
    with pytest.raises(DianError, match=r"record.json holds .* byte by byte; restore"):
        records.load(NAME, folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"status": "running"}, "its status is 'running'"),
        ({"seeds": [0, 1, 2, 3, 3]}, "bad seeds"),
        ({"seeds": []}, "bad seeds"),
        ({"metrics": {"test/accuracy": [0.5]}}, "test/accuracy is not one row"),
        ({"name": "another"}, "it says that it is 'another'"),
        ({"format": 0}, "expected format 1"),
        ({"seconds": "many"}, "field 'seconds' has a wrong type"),
        ({"extra": 1}, r"unknown fields \['extra'\]"),
    ],
)
def test_a_record_that_is_not_of_the_format(folder, fields, message):
    rewrite(folder, **fields)
    with pytest.raises(DianError, match=f"record {NAME}: {message}"):
        records.load(NAME, folder)


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(DianError, match=f"no record 'rnn-mnist'; nearest: .*{NAME}"):
        records.load("rnn-mnist")


def test_values(folder):
    record = records.load(NAME, folder)
    row = np.array(record.content["metrics"]["test/accuracy"])
    assert record.value("test/accuracy") == pytest.approx(row.mean())
    assert record.value("test/accuracy.sd") == pytest.approx(row.std(ddof=1))
    assert record.value("test/accuracy.min") == row.min()
    assert record.value("settings/h") == 128
    assert record.value("seeds") == 5
    with pytest.raises(DianError, match="no value 'test/acuracy'; nearest: test/acc"):
        record.value("test/acuracy")


def test_a_single_run_has_no_spread(folder):
    content = json.loads((folder / NAME / "record.json").read_text())
    one = {
        group: {key: rows[:1] for key, rows in content[group].items()}
        for group in ("series", "metrics")
    }
    rewrite(folder, seeds=[0], **one)
    record = records.load(NAME, folder)
    assert "1 seed (a single run)" in record.provenance
    with pytest.raises(DianError, match=r"no value 'test/accuracy\.sd'"):
        record.value("test/accuracy.sd")


def test_provenance_tells_all():
    record = records.load(NAME)
    for part in (record.device, record.started[:10], "5 seeds", record.command):
        assert part in record.provenance
    assert record.commit[:10] in record.provenance


def test_stale_names_the_module_and_a_proof_makes_it_fresh(folder):
    record = records.load(NAME, folder)
    today = records.source_key(record.content["module"])
    old = today | {"dian.rnn.recurrence": "another"}
    del old["dian.training.loss"]
    key = record.content["key"] | {"modules": old}
    rewrite(folder, key=key, proofs=[])
    record = records.load(NAME, folder)
    assert records.stale(record) == [
        "dian.training.loss is new",
        "dian.rnn.recurrence changed",
    ]
    records.add_proof(record, {"modules": today})
    record = records.load(NAME, folder)
    assert records.stale(record) == []
    assert len(record.content["proofs"]) == 1


def test_the_recorded_runs_are_fresh():
    for name in records.names():
        assert records.stale(records.load(name)) == []


def test_saving_refuses_what_loading_would(tmp_path):
    content = dict(records.load(NAME).content) | {"seeds": [1, 1, 1, 1, 1]}
    with pytest.raises(DianError, match="bad seeds"):
        records.save(tmp_path / NAME, content, {})
    assert not (tmp_path / NAME).exists()


def test_saving_into_what_is_no_folder_is_one_clear_line(tmp_path):
    (tmp_path / NAME).write_text("a file")
    files = {"arrays.safetensors": to_bytes({"x": np.zeros(2)})}
    with pytest.raises(DianError, match=r"the record cannot be written .File exists"):
        records.save(tmp_path / NAME, dict(records.load(NAME).content), files)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_is_not_a_number_is_refused(folder, constant):
    path = folder / NAME / "record.json"
    text = path.read_text()
    path.write_text(re.sub(r'"seconds": [\d.]+', f'"seconds": {constant}', text))
    with pytest.raises(DianError, match=f"record {NAME}: .*{constant} is not a number"):
        records.load(NAME, folder)
    bad = dict(records.load(NAME).content) | {"seconds": float(constant)}
    with pytest.raises(DianError, match=f"record {NAME}: a number .* is not finite"):
        records.save(folder / NAME, bad, {})


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_save_that_fails_leaves_the_old_record(folder, monkeypatch, n):
    """The disk is full at the first, second, third file."""
    record = records.load(NAME, folder)
    real, count = Path.write_bytes, iter(range(1, 9))

    def write_bytes(path, data):
        if next(count) == n:
            raise OSError(28, "No space left on device")
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        files = {"arrays.safetensors": b"new", "weights.safetensors": b"new"}
        with pytest.raises(DianError, match="No space left on device"):
            records.save(folder / NAME, dict(record.content), files)
    assert records.load(NAME, folder).content == record.content
    assert len(list((folder / NAME).iterdir())) == 3
