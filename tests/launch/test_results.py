"""What the commands say of a two-sample test."""

import io

import pytest
from rich.console import Console

from gebm.launch.results import print_comparison


def said(result: dict[str, object]) -> str:
    text = io.StringIO()
    print_comparison(result, 0.05, Console(file=text, width=120))
    return text.getvalue()


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        ({"p_value": 0.001}, "the two samples differ (p = 0.001)"),
        ({"p_value": 0.051}, "the two samples could not be told apart (p = 0.051)"),
        ({"p_value": 0.05, "sign_flip_p_value": 0.2}, "the second set is closer to the first than the base is"),
        ({"p_value": 0.4, "sign_flip_p_value": 0.01}, "it is not shown that the second set is closer"),
    ],
)
def test_each_test_answers_its_own_question(result, verdict):
    assert f"at level 0.05 {verdict}" in said(result)


def test_what_has_no_value_has_no_row():
    text = said({"p_value": 0.5, "why": "", "bins": None, "exact": True, "n": 5000})
    assert "why" not in text and "bins" not in text and "exact" in text and "5000" in text
