"""The directive of live figures, their puzzles, and what of them is made again."""

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from dian_sphinx.live import figure, kept, make, offered, site, spot
from dian_sphinx.live.kept import Piece


def test_a_file_is_made_again_if_it_is_gone_or_its_record_changed(
    tmp_path, monkeypatch
):
    made = []
    pieces = {"a.js": Piece("packed", "a"), "b.js": Piece("packed", "b")}
    monkeypatch.setattr(kept, "KEPT", tmp_path)
    monkeypatch.setattr(kept, "pieces", lambda: pieces)
    monkeypatch.setattr(
        make,
        "made",
        lambda piece: made.append(piece.function) or piece.function.encode(),
    )
    (tmp_path / "old.js").write_text("of a record that is gone")
    make.main()
    assert made == ["a", "b"]
    assert not (tmp_path / "old.js").exists()
    make.main()
    assert made == ["a", "b"]
    (tmp_path / "a.js").unlink()
    make.main()
    assert made == ["a", "b", "a"]
    pieces["b.js"] = Piece("packed", "c", records=("rnn-recipe-best",))
    assert kept.kept_keys() != kept.keys()
    make.main()
    assert made == ["a", "b", "a", "c"]
    assert (tmp_path / "b.js").read_text() == "c"


STILLS = {"still-reader.json", "still-attention.json", "still-denoise.json"}
READERS = {f"{name}.js" for name in offered.READERS}
TRANSFORMERS = {f"{name}.js" for name in offered.TRANSFORMERS}
CONDITIONAL, DENOISER = offered.DENOISERS


@pytest.mark.parametrize(
    ("module", "changed"),
    [
        ("reader", READERS | {"still-reader.json"}),
        ("attention", TRANSFORMERS | {"still-attention.json"}),
        ("denoise", {f"{DENOISER}.js", "still-denoise.json"}),
        ("unet_export", {f"{DENOISER}.onnx"}),
        (
            "images",
            {"images.js", "still-reader.json", "still-attention.json"}
            | READERS
            | TRANSFORMERS,
        ),
        ("puzzles", {f"spot-{chapter}.json" for chapter in kept.PUZZLES}),
        ("puzzle_results", {f"spot-{chapter}.json" for chapter in kept.PUZZLES}),
        *[(module, set()) for module in ("figure", "spot", "site", "make", "kept")],
    ],
)
def test_an_edit_changes_the_keys_of_what_the_module_makes(
    tmp_path, monkeypatch, module, changed
):
    """With one network for each figure that denoises."""
    monkeypatch.setattr(offered, "record_names", lambda: [DENOISER])
    package = shutil.copytree(kept.PACKAGE, tmp_path / "live")
    monkeypatch.setattr(kept, "PACKAGE", package)
    before = kept.keys()
    with (package / f"{module}.py").open("a") as file:
        file.write("\n# A comment changes no key.\n")
    assert kept.keys() == before
    with (package / f"{module}.py").open("a") as file:
        file.write("\nADDED = 1\n")
    after = kept.keys()
    assert {name for name in after if after[name] != before[name]} == changed


def test_every_file_has_a_function_that_makes_it():
    for piece in kept.pieces().values():
        module = import_module(f"dian_sphinx.live.{piece.module}")
        assert callable(getattr(module, piece.function))


def test_the_process_of_sphinx_imports_no_torch():
    code = (
        "import sys, dian_sphinx.live.site, dian_sphinx.live.kept;"
        "dian_sphinx.live.kept.keys();"
        "sys.exit(bool({'torch', 'onnx', 'PIL'} & sys.modules.keys()))"
    )
    extension = str(Path(kept.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": extension})
    assert done.returncode == 0


@pytest.mark.parametrize("there", [False, True])
def test_the_network_with_classes_is_the_first_if_it_is_recorded(monkeypatch, there):
    names = [CONDITIONAL, DENOISER] if there else [DENOISER]
    other = "ddpm-conditional-trial-small"
    monkeypatch.setattr(offered, "record_names", lambda: [other, *names])
    assert list(offered.networks("denoise")) == names


PUZZLE = {
    "question": "?",
    "place": "B",
    "what": "a < b",
    "shown": {"A": {"points": "0,0 1,1"}, "B": {"points": "0,0 1,2"}},
    "claim": "R5",
    "title": "BPTT",
    "tolerance": "1e-10",
    "right": "0e+00",
    "wrong": "1e+00",
}


def test_the_bug_is_behind_one_answer_alone():
    html = spot.spot(PUZZLE)
    assert re.findall(r"bug is in (.)</summary><p>(\w+)", html) == [
        ("A", "No"),
        ("B", "Correct"),
    ]
    assert "a &lt; b" in html
    assert 'href="verification/rnn.html#claim-r5"' in html


@pytest.fixture
def page(root, tmp_path, monkeypatch, extension_of, sphinx_build):
    """Return a function that builds a page, with files that are up to date."""
    made, source, runtime = (tmp_path / name for name in ("live", "docs", "runtime"))
    for folder in (made, source, runtime):
        folder.mkdir()
    (made / "spot-rnn.json").write_text(json.dumps(PUZZLE))
    still = {"image": "data:,", "width": 58, "said": "{name}, {p:.2f}."}
    still["values"] = {"name": "Bag", "p": 0.256}
    (made / "still-reader.json").write_text(json.dumps(still))
    for name in figure.files_of("reader"):
        (made / name).write_text(name)
    for name in site.RUNTIME_FILES:
        (runtime / name).write_text(name)
    monkeypatch.setattr(kept, "KEPT", made)
    monkeypatch.setattr(kept, "keys", kept.kept_keys)
    monkeypatch.setattr(site, "RUNTIME", runtime)

    def build(text):
        (source / "page.md").write_text(f"# Page\n\n{text}\n")
        extensions = ["myst_nb", extension_of("live.site")]
        settings = {
            "extensions": extensions,
            "master_doc": "page",
            "nb_execution_mode": "off",
        }
        settings |= {"html_static_path": [str(root / "docs/_static")]}
        warnings = sphinx_build(source, tmp_path / "built", settings)
        return warnings, tmp_path / "built"

    return build


def test_a_puzzle_is_placed_under_its_name_and_the_files_are_copied(page):
    warnings, built = page("```{live-figure} spot rnn\n:name: puzzle\n```")
    html = (built / "page.html").read_text("utf-8")
    assert not warnings
    assert 'id="puzzle"' in html
    assert spot.spot(PUZZLE) in html
    assert "runs in the browser" not in html  # a sentence of the PDF
    assert "live/live.js" not in html  # no network runs
    data = built / "_static/live/data"
    assert {path.name for path in data.iterdir()} == {"images.js"} | READERS
    assert len(list((built / "_static/live/runtime").iterdir())) == 3


def test_a_figure_waits_with_its_recorded_result(page):
    warnings, built = page("```{live-figure} reader\n```")
    html = (built / "page.html").read_text("utf-8")
    assert not warnings
    assert 'alt="Bag, 0.26." width="232"' in html
    assert '<button type="button" hidden>Run</button>' in html
    assert "live/live.js" in html
    facts = json.loads(re.search(r'<script type="application/json">(.*?)</', html)[1])
    assert facts["networks"] == offered.READERS
    assert facts["classes"][9] == "Ankle boot"
    assert facts["data"].keys() == {"images.js"} | READERS
    assert {"reader.js", "recurrent.js"} < facts["scripts"].keys()


def test_a_recorded_result_is_read_in_each_language_alike(monkeypatch):
    """The stored values stay in English, which is what the catalogues translate."""
    stored = {"image": "data:,", "width": 58, "said": "{name}."}
    stored["values"] = {"name": "Bag"}
    monkeypatch.setattr(kept, "read", lambda _: stored)
    monkeypatch.setattr(
        figure, "tr", lambda text, **values: f"<{text}>".format(**values)
    )
    first, again = (figure.recorded_result("reader") for _ in range(2))
    assert "&lt;&lt;Bag&gt;.&gt;" in first
    assert first == again
    assert stored["values"] == {"name": "Bag"}


def test_the_content_of_the_directive_takes_the_place_of_the_result(page):
    _, built = page("```{live-figure} reader\n:small:\n\nAnother picture.\n```")
    html = (built / "page.html").read_text("utf-8")
    assert "Another picture." in html
    assert "Bag, 0.26." not in html
    assert 'data-size="small"' in html


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("readers", "expected one of reader, attention, denoise, spot, got readers"),
        ("spot", "expected spot and one of rnn, positions, attention, diffusion"),
        ("spot lstm", "got 'lstm'"),
    ],
)
def test_an_error_names_what_the_directive_expects(page, arguments, said):
    warnings, _ = page(f"```{{live-figure}} {arguments}\n```")
    assert said in warnings


@pytest.mark.parametrize(
    ("folder", "up"),
    [("", ""), ("x/", "../../_static/"), ("x/y/", "../../../_static/")],
)
def test_each_edition_loads_the_script_of_the_english_one(monkeypatch, folder, up):
    language = "zh_CN" if folder else "en"
    edition = site.EDITIONS[language]._replace(folder=folder)
    monkeypatch.setitem(site.EDITIONS, language, edition)
    loaded = []
    app = SimpleNamespace(
        config=SimpleNamespace(language=language),
        env=SimpleNamespace(metadata={"page": {"live": True}}),
        add_js_file=loaded.append,
    )
    site.load_script(app, "page", "", {}, None)
    assert loaded == [f"{up}live/live.js"]
