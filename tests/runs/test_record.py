"""A record is refused unless every byte is as it was written."""

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dian.errors import DianError
from dian.runs.record import (
    RECORDED,
    Record,
    add_proof,
    check_replaceable,
    hashes_of,
    load,
    record_names,
    save,
    sealed,
    to_json,
    used_in,
)

NAME = "rnn-fashion-mnist"
FILES = ("record.json", "arrays.safetensors", "weights.safetensors")


@pytest.fixture
def folder(tmp_path):
    """A copy of a real record, to be damaged."""
    shutil.copytree(RECORDED / NAME, tmp_path / NAME)
    return tmp_path


def rewrite(folder, **fields):
    """Change fields with a right checksum, as a fault in our own code would."""
    content = json.loads((folder / NAME / "record.json").read_text()) | fields
    (folder / NAME / "record.json").write_bytes(to_json(sealed(content)))


def refusal(folder):
    """The message with which a record is refused: always one line."""
    with pytest.raises(DianError) as refused:
        load(NAME, folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_copy_is_intact(folder):
    assert load(NAME, folder).content == load(NAME).content
    assert record_names(folder) == [NAME]


# --- Damage ---------------------------------------------------------------------------


def test_three_hundred_flipped_bits_are_refused(folder):
    """Anywhere in the three files: even where the number read would be the same."""
    whole = {file: (folder / NAME / file).read_bytes() for file in FILES}
    bits = [(file, at) for file in FILES for at in range(8 * len(whole[file]))]
    for file, at in random.Random(0).sample(bits, 300):
        flipped = bytearray(whole[file])
        flipped[at // 8] ^= 1 << at % 8
        (folder / NAME / file).write_bytes(flipped)
        assert re.search(rf"{file}|record {NAME}: ", refusal(folder))
        (folder / NAME / file).write_bytes(whole[file])
    load(NAME, folder)


@pytest.mark.parametrize("file", FILES)
def test_a_record_cut_at_any_kilobyte_is_refused(folder, file):
    path = folder / NAME / file
    whole = path.read_bytes()
    for cut in (0, 1, *range(1024, len(whole), 1024), len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert file in refusal(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"seconds": 1e-05', '"seconds": 1E-05'),
        ('"seconds": 1e-05', '"seconds": 0.00001'),
        ('"seconds": 1e-05', '"seconds":  1e-05'),
        ('"seconds": 1e-05', '"seconds": 1e-05, "seconds": 1e-05'),
    ],
)
def test_another_spelling_of_the_same_record_is_refused(folder, old, new):
    rewrite(folder, seconds=1e-05)
    load(NAME, folder)
    path = folder / NAME / "record.json"
    path.write_text(path.read_text().replace(old, new))
    assert "byte by byte; restore it with git" in refusal(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("[1, 2]"), r"not as it was written"),
        (lambda path: path.write_text("{}"), r"not as it was written"),
        (lambda path: path.write_bytes(b"\xff"), r"record.json cannot be read .*utf-8"),
        (
            lambda path: path.write_text(
                re.sub(r'("seconds": )[\d.]+', r"\1NaN", path.read_text())
            ),
            r"a number in it is not finite",
        ),
        (
            lambda path: path.write_text(
                path.read_text().replace('"h": 128', '"h": 64')
            ),
            r"not as it was written, byte by byte",
        ),
        (
            lambda path: path.with_name("weights.safetensors").unlink(),
            r"weights.safetensors: no such file; restore it with git, or run: .* train",
        ),
    ],
)
def test_damage_is_named(folder, damage, message):
    damage(folder / NAME / "record.json")
    assert re.search(message, refusal(folder))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "another"},
            rf"expected the name '{NAME}' and format 1, found .*'ano",
        ),
        ({"format": 2}, r"expected the name .* and format 1, found .* 2\)"),
    ],
)
def test_another_format_is_refused(folder, fields, message):
    rewrite(folder, **fields)
    assert re.search(f"record {NAME}: {message}", refusal(folder))


def test_a_file_is_verified_again_when_it_is_used(folder):
    record = load(NAME, folder)
    (folder / NAME / "weights.safetensors").write_bytes(b"")
    with pytest.raises(DianError, match=r"weights\.safetensors: expected SHA-256"):
        _ = record.weights


def test_a_name_and_a_folder_may_be_a_path_or_a_string(folder):
    assert load(Path(NAME), str(folder)).content == load(NAME, folder).content


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(DianError, match=f"no record 'rnn-mnist'; nearest: .*{NAME}"):
        load("rnn-mnist")


# --- Values ---------------------------------------------------------------------------


def test_values():
    record = load(NAME)
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
    metrics = {key: rows[:1] for key, rows in content["metrics"].items()}
    rewrite(folder, seeds=[0], metrics=metrics)
    record = load(NAME, folder)
    assert "1 seed (a single run)" in record.provenance
    assert re.fullmatch(r"accuracy 0\.\d{3}", record.headline)
    with pytest.raises(DianError, match=r"no value 'test/accuracy\.sd'"):
        record.value("test/accuracy.sd")


def test_provenance_is_complete():
    record = load(NAME)
    parts = (record.device, record.started[:10], record.commit[:10], "5 seeds")
    for part in (*parts, record.command):
        assert part in record.provenance


@pytest.mark.parametrize("name", record_names())
def test_a_record_is_one_line(name):
    text = repr(load(name))
    assert re.fullmatch(rf"<Record {name}: .*\d seeds?, (fresh|stale)>", text)
    assert len(text) < 120


def test_a_record_in_a_notebook():
    html = load(NAME)._repr_html_()
    assert "<td>test/accuracy</td>" in html
    assert len(re.search('points="(.*?)"', html)[1].split()) == 30  # epochs
    record = load("benchmarks-cpu")
    assert "svg" not in record._repr_html_()  # it has no loss


def test_reading_a_record_does_not_import_torch():
    code = (
        f"import sys, dian; record = dian.load('{NAME}'); repr(record); record.arrays;"
        "record._repr_html_(); dian.__version__; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- The trained network --------------------------------------------------------------


def test_a_model_gives_the_recorded_predictions(real_data):
    record, test = load(NAME), real_data["test"]
    model = record.model()
    with torch.no_grad():
        predicted = model(test.unit()).argmax(1)
    recorded = torch.from_numpy(record.arrays["predictions"][0])
    assert (predicted == recorded).double().mean() > 0.999  # another machine may round


@pytest.mark.parametrize("name", [n for n in record_names() if load(n).replay])
def test_every_record_gives_a_model(name):
    record = load(name)
    model = record.model()
    assert not model.training
    for key, weight in model.state_dict().items():
        assert torch.equal(weight, record.weights[key].to(weight.dtype)), key


def test_a_record_of_times_has_no_model():
    with pytest.raises(DianError, match=r"benchmarks-cpu holds times, no network$"):
        load("benchmarks-cpu").model()


# --- Writing --------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path):
    record = load(NAME)
    files = {file: (record.folder / file).read_bytes() for file in FILES[1:]}
    save(tmp_path / "new" / NAME, record.content, files)
    assert load(NAME, tmp_path / "new").content == record.content


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seconds": float("nan")}, "a number in it is not finite"),
        ({"seconds": float("inf")}, "a number in it is not finite"),
    ],
)
def test_a_bad_record_is_not_saved(folder, fields, message):
    before = load(NAME, folder).content
    with pytest.raises(DianError, match=f"record {NAME}: {message}"):
        save(folder / NAME, before | fields, {})
    assert load(NAME, folder).content == before


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_save_that_fails_keeps_the_old_record(folder, monkeypatch, n):
    """The disk is full at the first, second, third file."""
    record = load(NAME, folder)
    real, count = Path.write_bytes, iter(range(1, 9))

    def write_bytes(path, data):
        if next(count) == n:
            raise OSError(28, "No space left on device")
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        files = {"arrays.safetensors": b"new", "weights.safetensors": b"new"}
        with pytest.raises(DianError, match="No space left on device"):
            save(folder / NAME, record.content, files)
    assert load(NAME, folder).content == record.content
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / NAME).write_text("mine")
    with pytest.raises(DianError, match=r"the record cannot be written .File exists"):
        save(tmp_path / NAME, load(NAME).content, {})
    assert (tmp_path / NAME).read_text() == "mine"


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"notes.txt": "mine"}, "notes.txt"),
        ({"weights.safetensors": "mine"}, "weights.safetensors"),
        ({"record.json": '{"title": "of another program"}'}, "record.json"),
        ({"record.json": ""}, "record.json"),
        ({"sub/record.json": "mine"}, "sub"),
        ({".hidden": "mine"}, ".hidden"),
    ],
)
def test_a_folder_that_is_not_a_record_is_refused_and_kept(tmp_path, files, named):
    for name, text in files.items():
        (tmp_path / NAME / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / NAME / name).write_text(text)
    with pytest.raises(DianError, match=rf"{NAME}: {named} in it .* lost; move"):
        save(tmp_path / NAME, load(NAME).content, {})
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    for name, text in files.items():
        assert (tmp_path / NAME / name).read_text() == text


def test_a_record_with_a_file_of_the_user_is_refused_and_kept(folder):
    before = load(NAME, folder).content
    (folder / NAME / "notes.txt").write_text("mine")
    with pytest.raises(DianError, match=r"notes\.txt in it is not part of a record"):
        save(folder / NAME, before | {"seconds": 7.0}, {})
    assert (folder / NAME / "notes.txt").read_text() == "mine"
    assert load(NAME, folder).content == before


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_record_is_replaced(folder, file):
    content = load(NAME, folder).content
    path = folder / NAME / file
    path.write_bytes(path.read_bytes()[:99])
    (folder / NAME / ".record.json.4711").touch()  # of a process that was killed
    save(folder / NAME, content, {})
    assert load(NAME, folder).content["settings"] == content["settings"]
    assert [path.name for path in (folder / NAME).iterdir()] == ["record.json"]


def test_every_record_may_be_replaced(tmp_path):
    for name in record_names():
        check_replaceable(RECORDED / name)
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty")
    check_replaceable(tmp_path / "missing")


def test_a_link_to_a_folder_stays_one(folder, tmp_path):
    content = load(NAME, folder).content
    (folder / "disk").mkdir()
    (folder / NAME).rename(folder / "disk" / NAME)
    (folder / NAME).symlink_to(folder / "disk" / NAME)
    save(folder / NAME, content | {"seconds": 7.0}, {})
    assert (folder / NAME).is_symlink()
    assert load(NAME, folder).seconds == 7.0
    assert {path.name for path in folder.iterdir()} == {NAME, "disk"}
    assert [path.name for path in (folder / "disk").iterdir()] == [NAME]


def test_a_proof_is_added_and_nothing_else_changes(folder):
    record = load(NAME, folder)
    add_proof(record, {"modules": {"a": "b"}}, "dian.experiments.rnn.study")
    after = load(NAME, folder)
    assert after.proofs == [*record.proofs, {"modules": {"a": "b"}}]
    changed = {
        key for key in after.content if after.content[key] != record.content[key]
    }
    assert changed <= {"proofs", "module", "checksum"}


# --- Use ------------------------------------------------------------------------------


def test_the_records_that_a_script_loads(tmp_path):
    script = tmp_path / "plot.py"
    script.write_text(
        f'runs = [load("{NAME}"), load(x := "rnn-recipe-best"), "no-such-record"]'
    )
    assert used_in(script) == [NAME, "rnn-recipe-best"]
    hashes = hashes_of(used_in(script))
    assert {f"rnn-recipe-best/{file}" for file in FILES} < set(hashes)
    assert (
        hashes[f"{NAME}/weights.safetensors"]
        == (load(NAME).content["files"]["weights.safetensors"])
    )


def test_a_record_is_not_edited_in_place():
    with pytest.raises(AttributeError):
        load(NAME).name = "another"
    assert isinstance(load(NAME), Record)
