"""What the browser loads is made from the records, and made again when they change."""

import base64
import json
import re

import numpy as np
import pytest

from dian.runs.record import load
from dian_sphinx import live, policy

SCRIPT = re.compile(r'dianLive\.give\("([\w-]+)",(\{.*\}),"([A-Za-z0-9+/=]*)"\);\n')


def unpacked(script):
    """Read a script of weights as the page does."""
    name, content, text = SCRIPT.fullmatch(script).groups()
    numbers, found = np.frombuffer(base64.b64decode(text), "<f4"), {}
    for key, (at, *shape) in json.loads(content)["tensors"].items():
        found[key] = numbers[at : at + int(np.prod(shape))].reshape(shape)
    return name, found


@pytest.mark.parametrize("name", live.READERS)
def test_a_script_holds_every_weight_of_a_reader_as_recorded(name):
    found_name, found = unpacked(live.reader_script(name))
    weights = load(name).weights
    assert found_name == name
    assert sum(x.size for x in found.values()) == sum(
        w.numel() for w in weights.values()
    )
    for key, tensor in weights.items():
        same = [np.array_equal(x, tensor) for x in found.values()]
        assert any(same), key


@pytest.mark.parametrize("name", live.TRANSFORMERS)
def test_a_script_holds_every_weight_of_a_transformer_as_recorded(name):
    _, found = unpacked(live.transformer_script(name))
    weights = load(name).weights
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[key], weights[key]) for key in weights)


def test_a_file_is_made_again_if_it_is_gone_or_its_record_changed(
    tmp_path, monkeypatch
):
    made = []

    def piece(content, depends="a record"):
        return lambda: depends, lambda: made.append(content) or content

    parts = {"a.js": piece("a"), "b.js": piece("b")}
    monkeypatch.setattr(live, "KEPT", tmp_path)
    monkeypatch.setattr(live, "pieces", lambda: parts)
    (tmp_path / "old.js").write_text("of a record that is gone")
    live.main()
    assert made == ["a", "b"]
    assert not (tmp_path / "old.js").exists()
    live.main()
    assert made == ["a", "b"]
    (tmp_path / "a.js").unlink()
    live.main()
    assert made == ["a", "b", "a"]
    parts["b.js"] = piece("c", "another record")
    assert live.kept_keys() != live.keys()
    live.main()
    assert made == ["a", "b", "a", "c"]
    assert (tmp_path / "b.js").read_text() == "c"


def test_a_network_with_classes_is_exported_with_them():
    onnx = pytest.importorskip("onnx")
    from dian.diffusion.unet import UNet

    graph = onnx.load_model_from_string(
        live.export(UNet("tiny", num_classes=10).eval())
    )
    assert [one.name for one in graph.graph.input] == ["x", "t", "y"]


@pytest.mark.parametrize("there", [False, True])
def test_the_network_with_classes_is_offered_when_it_is_recorded(monkeypatch, there):
    names = ["ddpm-conditional-trial-small", "ddpm-fashion-mnist-small"]
    names += ["ddpm-conditional-small"] if there else []
    monkeypatch.setattr(live, "record_names", lambda: names)
    assert list(live.denoisers()) == names[1:]


def test_what_is_said_of_recorded_images_is_what_is_recorded():
    found = live.recorded_distances(live.DENOISER)
    record = load(f"{live.DENOISER}-evaluation")
    assert list(found) == [10, 20, 50, 100]
    assert found[20][0] == pytest.approx(record.value("ddim-20/both/frechet"), abs=0.01)


def test_the_bug_is_behind_one_answer_alone():
    puzzle = {
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
    html = live.spot(puzzle)
    assert re.findall(r"bug is in (.)</summary><p>(\w+)", html) == [
        ("A", "No"),
        ("B", "Correct"),
    ]
    assert "a &lt; b" in html
    assert 'href="verification/rnn.html#claim-r5"' in html


def test_the_policy_names_the_scripts_of_the_page_and_no_other_origin():
    page = (
        "<html><head></head><body><script>a()</script>"
        '<script type="application/json">{"x": "<b onclick=\\"no()\\">"}</script>'
        '<button onclick="b(&quot;c&quot;)">x</button></body></html>'
    )
    secured = policy.secured(page)
    content = re.search(r'content="([^"]*)"', secured)[1]
    assert policy.hashed("a()") in content
    assert policy.hashed('b("c")') in content
    assert content.count("sha256") == 2
    assert "http" not in content
    assert "'unsafe-eval'" not in content
    assert policy.policy(secured) == content
    assert policy.secured("not a page") == "not a page"
