"""samref.backbones.packages: a module of a package whose own `__init__` is left until it is needed."""

import pytest

from samref.backbones.packages import import_alone


def test_a_package_runs_when_something_of_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in ("dear", "dear/inner"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dear/__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'x')\nfrom .inner import there\n")
    (tmp_path / "dear/inner/__init__.py").write_text("from .deep import there\n")
    (tmp_path / "dear/inner/deep.py").write_text("there = object()\n")
    inner = import_alone("dear", "inner")
    assert import_alone("dear", "inner.deep").there is inner.there
    assert not (tmp_path / "ran").exists()
    import dear

    assert dear.inner is inner
    assert not (tmp_path / "ran").exists()
    assert dear.there is inner.there
    assert (tmp_path / "ran").exists()
    with pytest.raises(AttributeError):
        _ = dear.nowhere
    with pytest.raises(ModuleNotFoundError, match=r"dear\.outer"):
        import_alone("dear", "outer")
    with pytest.raises(ModuleNotFoundError, match="absent"):
        import_alone("absent", "inner")
