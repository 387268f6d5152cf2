"""Whatever comes, the answer is one clear line."""

import numpy as np
import pytest
import torch

from dian.check import check, diagnosis, parametrize_with_checks


@pytest.fixture(autouse=True)
def without_pairs(monkeypatch):
    """Two mistakes at once are tried for a second or two, which no test here needs."""
    monkeypatch.setattr(diagnosis, "PAIRS_SECONDS", 0)


def right(gradients, max_norm):
    norm = torch.sqrt(sum(g.square().sum() for g in gradients))
    return [g * min(1.0, max_norm / norm) if norm else g for g in gradients]


def test_a_right_function():
    report = check("clip", right)
    assert report.passed
    assert report.status == 0
    assert report.conventions == {
        "how": "returns gradients",
        "epsilon": "theta / norm",
    }


def fault_of(function, kind="clip"):
    report = check(kind, function)
    assert not report.passed
    assert "\n" not in report.fault
    return report.fault


def test_an_exception():
    def function(gradients, max_norm):
        raise KeyError("norm")

    report = check("clip", function)
    assert report.status == 2
    assert report.fault == "raises KeyError: 'norm'"
    assert "Traceback" in report.details
    assert "Traceback" not in str(report)


def test_exit():
    def function(gradients, max_norm):
        raise SystemExit(3)

    assert fault_of(function) == "raises SystemExit: 3"


def test_too_few_arguments():
    assert "takes no 'max_norm'; expected (gradients, max_norm)" in fault_of(
        lambda g: g
    )


def test_too_many_arguments():
    def function(gradients, max_norm, more):
        return gradients

    assert "'more' is none of (gradients, max_norm)" in fault_of(function)


def test_none():
    assert "returns nothing (None)" in fault_of(lambda Q, K, V: None, "attention")


def test_another_type():
    assert "returns str" in fault_of(lambda Q, K, V: "abc", "attention")


def test_wrong_shape_is_told():
    report = check("attention", lambda Q, K, V: V)
    line = next(line for line in report.lines if "softmax" in line.title)
    assert "shape (1, 1, 2, 1), expected (1, 1, 1, 1)" in line.detail


def test_nan():
    def function(Q, K, V):
        S = Q @ K.mT / Q.shape[-1] ** 0.5
        return S.exp() / S.exp().sum(-1, keepdim=True) @ V

    report = check("attention", function)
    line = next(line for line in report.lines if "1000" in line.title)
    assert line.detail == "scores of about 1000: NaN"
    assert report.mistakes == ["the softmax overflows"]


def test_in_place():
    def function(logits, target):
        logits -= logits.amax(-1, keepdim=True)
        return -logits.log_softmax(-1).gather(1, target[:, None]).mean()

    assert fault_of(function, "cross-entropy").startswith("changes its arguments")


def test_in_place_where_that_is_right():
    def function(parameters, max_norm):
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    def ignored(parameters, max_norm):
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        return

    for each in (torch.nn.utils.clip_grad_norm_, function, ignored):
        report = check("clip", each)
        assert report.passed, report
        assert report.conventions["how"] == "changes .grad of parameters"
        assert report.conventions["epsilon"].endswith("as torch")


def test_random():
    def function(Q, K, V):
        P = torch.dropout((Q @ K.mT / Q.shape[-1] ** 0.5).softmax(-1), 0.3, True)
        return P @ V

    assert fault_of(function, "attention").startswith("is random")


def test_state():
    calls = []

    def function(Q, K, V):
        calls.append(1)
        P = (Q @ K.mT / Q.shape[-1] ** 0.5).softmax(-1)
        return P @ V * (1 + 1e-3 * len(calls))

    assert "keeps state between calls" in fault_of(function, "attention")


def test_prints(capsys):
    def function(gradients, max_norm):
        print("norm", max_norm)
        return right(gradients, max_norm)

    report = check("clip", function)
    assert report.passed
    assert report.notes == ["prints while it computes"]
    assert capsys.readouterr().out == ""


def test_the_global_state_is_restored():
    def function(gradients, max_norm):
        torch.set_default_dtype(torch.float16)
        torch.manual_seed(3)
        torch.set_grad_enabled(False)
        return right(gradients, max_norm)

    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    check("clip", function)
    assert torch.is_grad_enabled()
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_default_dtype() == torch.float32


def test_float32_alone():
    weight = torch.eye(3)

    def function(logits, target):
        logits = logits @ torch.eye(logits.shape[-1], dtype=weight.dtype)
        return torch.nn.functional.cross_entropy(logits, target)

    report = check("cross-entropy", function)
    assert report.passed, report
    assert "takes float32 only" in report.notes[0]


def test_numpy_is_found():
    def clip(gradients, max_norm):
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
        factor = min(1, max_norm / max(norm, 1e-300))
        return [np.multiply(g, factor, out=np.empty_like(g)) for g in gradients]

    report = check("clip", clip)
    assert report.passed, report
    assert report.conventions["arrays"] == "NumPy arrays"
    assert check("clip", clip, arrays="numpy").passed


def test_no_function():
    assert fault_of(3) == "is no function but of type int"


def test_a_module_where_none_is_known():
    assert "takes a function" in fault_of(torch.nn.Linear)


@parametrize_with_checks("clip", right)
def test_properties_one_by_one(case):
    case()


def test_a_property_that_fails_shows_the_report():
    mark = parametrize_with_checks("clip", lambda gradients, max_norm: gradients)
    cases = mark.args[1]
    assert str(cases[0]) == "scales all gradients to the norm"
    with pytest.raises(AssertionError, match="scales all gradients") as error:
        cases[0]()
    assert "✗" in str(error.value)
    cases[1]()  # leaves short gradients as they are


def test_properties_that_cannot_be_checked_are_skipped():
    def function(Q, K, V):
        return torch.nn.functional.scaled_dot_product_attention(Q, K, V)

    cases = parametrize_with_checks("attention", function).args[1]
    masked = next(case for case in cases if case.title == "applies the mask")
    with pytest.raises(pytest.skip.Exception, match="no mask"):
        masked()
