"""Numbers in the text are read from records, and only from fresh ones."""

import re

import pytest

from dian.runs import freshness
from dian.runs import record as runs

NAME = "rnn-fashion-mnist"


def test_a_result_is_read_from_the_record(site):
    assert site.build(f"Right: {{result}}`{NAME}/test/accuracy:.3%`, today.") == ""
    value = runs.load(NAME).value("test/accuracy")
    assert f'<span class="result">{value:.3%}</span>, today.' in site.html


def test_a_result_works_in_rest(site):
    page = f"Page\n====\n\nSeeds: :result:`{NAME}/seeds`.\n"
    assert site.build(page_rst=page) == ""
    assert f'<span class="result">{len(runs.load(NAME).seeds)}</span>' in site.html


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (f"{NAME}/test/acuracy:.1%", "nearest: .*test/accuracy"),
        ("rnn-fashion-mnits/test/accuracy:.1%", f"nearest: {NAME}"),
        (f"{NAME}/test/accuracy:.1z", "format"),
        (f"{NAME}/device:.1f", "format"),
        (NAME, "no value ''"),
    ],
)
def test_an_unknown_result_is_a_warning_that_names_it(site, asked, said):
    warning = site.build(f"Right: {{result}}`{asked}`.")
    assert f"result {asked}: " in warning
    assert "page.md:3" in warning
    assert re.search(said, warning)


def test_an_edited_record_stops_the_build(site):
    site.edit_record()
    with pytest.raises(SystemExit, match=f"record {NAME}: .*byte by byte"):
        site.build("Nothing is read from the record here.")


def test_an_edited_record_stops_a_build_that_reads_no_page_again(site):
    site.build(f"{{result}}`{NAME}/seeds`")
    site.edit_record()
    with pytest.raises(SystemExit, match=rf"{NAME}.*shown by docs/page\.md"):
        site.build()


def test_a_damaged_file_of_a_record_stops_the_build(site):
    path = site.records / NAME / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SystemExit, match=NAME):
        site.build("Text.")


def test_a_stale_record_stops_the_build(site, monkeypatch):
    monkeypatch.setattr(
        freshness, "stale", lambda record: ["dian.rnn.recurrence changed"]
    )
    with pytest.raises(
        SystemExit, match=f"{NAME} is stale: dian.rnn.recurrence changed; run: "
    ):
        site.build("Text.")


def test_a_page_is_read_again_when_its_record_changes(site):
    site.build(f"{{result}}`{NAME}/test/accuracy:.4f`")
    site.rewrite_record(**{"test/accuracy": 0.5})
    assert site.build() == ""
    assert '<span class="result">0.5000</span>' in site.html


ACCURACY = f"{{result}}`{NAME}/test/accuracy:.1%`"


@pytest.mark.parametrize(
    "text",
    [
        f"It gets {ACCURACY}, that is 1.5 more.",
        f"It gets {ACCURACY}, and not 80 %.",
        f"It gets {ACCURACY}, and not **80%**.",
        f"It gets {ACCURACY}, and not 80 per cent.",
        f"- It gets {ACCURACY}, and not .8.",
        f"| a | b |\n|---|---|\n| {ACCURACY} | 0.87 |",
    ],
)
def test_a_typed_number_beside_a_result_is_a_warning(site, text):
    warning = site.build(text)
    assert warning.count("numbers in a results sentence come from a record") == 1


@pytest.mark.parametrize(
    "text",
    [
        f"It gets {ACCURACY} of 10,000 images, with `lr=0.1` and $0.5 x$.",
        f"It gets {ACCURACY}.\n\nOthers get 0.9.",
        f"| a | b |\n|---|---|\n| {ACCURACY} | x |\n| 0.9 | y |",
    ],
)
def test_other_numbers_may_be_typed(site, text):
    assert site.build(text) == ""


def test_the_runs_are_listed_and_linked(site):
    text = f"```{{provenance}} {NAME}\n```\n\n```{{runs}}\n```"
    assert site.build(text) == ""
    assert f'<section id="run-{NAME}">' in site.html
    assert f'href="#run-{NAME}"' in site.html
    versions = runs.load(NAME).content["environment"]
    assert f"Python {versions['python']}, PyTorch {versions['torch']}" in site.html
    assert re.search("<td><p>yes: (replayed on|its code has not)", site.html)


def test_each_run_shows_its_result_and_its_use(site):
    assert site.build("```{runs}\n```") == ""
    record = runs.load(NAME)
    text = re.sub("<[^>]+>", "", site.html)
    mean = record.metrics["test/accuracy"].mean()
    assert re.search(rf"test/accuracy\s+{mean:.4g}", text)
    assert record.headline in text
    assert f'record = dian.load("{NAME}")' in text
    assert f"$ {record.command}" in text
    assert "<title>training loss by epoch</title>" in site.html
    [weights] = (site.built / "_downloads").rglob("weights.safetensors")
    assert weights.read_bytes() == (record.folder / "weights.safetensors").read_bytes()
