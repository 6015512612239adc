"""YAML as sweep files have it: numbers mean what people mean, and what is no YAML is one line."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samref_sweep.errors import SpecError
from samref_sweep.spec.yaml_text import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0100", 100), ("010", 10), ("-08", -8), ("80_000", 80_000), ("0o17", 15), ("0x1f", 31), ("8e4", 80_000),
        ("1e-4", 1e-4), ("1.", 1.0), ("+.5", 0.5), (".inf", math.inf), ("1:30", "1:30"), ("1:30.5", "1:30.5"),
        ("2026-01-02", "2026-01-02"), ("yes", True), ("off", False), ("~", None), ("=", "="), ("<<", "<<"),
        ("0.30000000000000004", 0.3), ("0.7999999999999999", 0.8), ("1.1000000000000000001e-3", 1.1e-3),
        ("0.1234567890123456", 0.1234567890123456), ("1234567.8900000001", 1234567.8900000001),
        ("{a: &a {x: 1, y: 2}, b: {<<: *a, y: 3}}", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
    ],
)  # fmt: skip
def test_a_text_is_what_people_mean(text: str, value: object) -> None:
    found = parse(text, "here")
    assert (found, type(found)) == (value, type(value))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_itself_but_for_noise(value: float) -> None:
    found = parse(repr(value), "here")
    assert found == value or math.isclose(found, value, rel_tol=1e-14)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 5000, "nested too deeply"),
        ("{a: " * 3000, "nested too deeply"),
        ("&a [*a]", "recursive"),
        ("9" * 5000, "4300 digits"),
        ("a: [1,\n1e400]", "line 2: 1e400 is too large a number"),
        ("a: 1\na: 2", "line 2: a is written twice"),
        ("{<<: 3}", "expected a mapping"),
        ("!!timestamp x", "could not determine a constructor for the tag"),
        ("!!python/name:os.system", "could not determine a constructor for the tag"),
        ("a\0b", "unacceptable character"),
    ],
)
def test_what_is_no_yaml_is_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(text, "here")
    assert str(caught.value).startswith("here:")
    assert "\n" not in str(caught.value)
