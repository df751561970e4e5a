"""The files in `examples/` are right."""

import pytest

from minichat.cli.main import main
from minichat.settings import current
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "name", sorted(file.name.partition(".")[0] for file in (ROOT / "examples").glob("*.policy.json"))
)
def test_a_policy_validates_with_the_settings_beside_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ROOT / "examples"
    monkeypatch.setenv("MINICHAT_CONFIG", str(folder / f"{name}.settings.json"))
    current.cache_clear()
    assert main(["policy", "validate", str(folder / f"{name}.policy.json")]) == 0
    current.cache_clear()
    told = capsys.readouterr()
    assert "1 models, valid" in told.out
    assert not told.err
