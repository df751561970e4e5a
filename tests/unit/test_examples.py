"""The files in `examples/` are right."""

import pytest

from minichat.cli.main import main
from minichat.local import deployed
from minichat.local.tables import load_template
from minichat.settings import current, load
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


def test_the_user_pool_says_the_parameters_with_which_its_tokens_are_taken() -> None:
    example = load_template(ROOT / "examples" / "cognito" / "template.yaml")
    declared = load_template(ROOT / "template.yaml")["Parameters"]
    outputs = {name: str(one["Value"]) for name, one in example["Outputs"].items() if name != "UserPoolId"}
    assert outputs.keys() <= declared.keys()
    assert all(len(value) <= declared[name].get("MaxLength", 256) for name, value in outputs.items())
    auth = load(deployed.by_parameters(outputs | {"ProviderBaseUrl": "https://sample"})).auth
    assert (auth.tenant_claim, auth.expected_claims) == ("custom:tenant_id", {"token_use": "id"})
    groups = [one["Properties"]["GroupName"] for one in example["Resources"].values() if "Group" in one["Type"]]
    assert sorted(auth.roles) == sorted(groups)
    client = example["Resources"]["Client"]["Properties"]
    assert "custom:tenant_id" in client["ReadAttributes"]
    assert "custom:tenant_id" not in client["WriteAttributes"]  # or users would choose their tenant
    assert example["Resources"]["Users"]["Properties"]["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is True
