"""Settings come from the environment and a file, and a wrong one says its name."""

import json
from pathlib import Path

import pytest

from minichat.services.rules import SHIPPED_POLICY, policy_file
from minichat.settings import Settings, SettingsError, examine, load


def test_defaults_are_the_designs() -> None:
    settings = load({})
    assert settings == Settings()
    assert (settings.streaming.channel_capacity, settings.streaming.ping_interval_seconds) == (32, 15)
    assert settings.quota.overshoot_tolerance_pct == 110


def test_variables_reach_every_level_and_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("url_prefix: /chat\nstreaming:\n  channel_capacity: 16\n  ping_interval_seconds: 20\n")
    settings = load({"MINICHAT_CONFIG": str(file), "MINICHAT_STREAMING__PING_INTERVAL_SECONDS": "30", "PATH": "/bin"})
    assert settings.url_prefix == "/chat"
    assert (settings.streaming.channel_capacity, settings.streaming.ping_interval_seconds) == (16, 30)


def test_a_value_may_be_json() -> None:
    providers = {"mine": {"base_url": "https://models.example", "retries": 0}}
    assert load({"MINICHAT_PROVIDERS": json.dumps(providers)}).providers["mine"].retries == 0


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"MINICHAT_STREAMING__PING_INTERVAL_SECONDS": "4"}, "streaming.ping_interval_seconds"),
        ({"MINICHAT_STREAMING__CHANNEL_CAPACITY": "many"}, "streaming.channel_capacity"),
        ({"MINICHAT_NO_SUCH_KEY": "1"}, "no_such_key"),
        ({"MINICHAT_PROVIDERS": "{"}, "MINICHAT_PROVIDERS"),
        ({"MINICHAT_PROVIDERS": '{"a": {"base_url": "http://plain"}}'}, "allow_insecure"),
        ({"MINICHAT_AUTH__DEVELOPMENT_USER": "u"}, "development_tenant"),
        ({"MINICHAT_URL_PREFIX": "no-slash"}, "url_prefix"),
        ({"MINICHAT_CONFIG": "/nowhere.json"}, "/nowhere.json"),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load(environment)


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match="MINICHAT_CONFIG"):
        load({"MINICHAT_CONFIG": str(file)})


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"MINICHAT_QUOTA__RETENTION_DAYS": "3"}, ["quota.retention_days"]),
        ({"MINICHAT_QUOTA__RETENTION_DAYS": "3", "MINICHAT_COLOUR": "red"}, ["quota.retention_days", "colour"]),
        ({"MINICHAT_STORE": "[1]", "MINICHAT_AUDIT": "{"}, ["MINICHAT_AUDIT", "store"]),
        ({"MINICHAT_CONFIG": "/nowhere.json", "MINICHAT_STREAMING": "off"}, ["/nowhere.json", "streaming"]),
        ({"MINICHAT_AUTH__DEVELOPMENT_USER": "me"}, ["development_tenant"]),
        ({"MINICHAT_PROVIDERS": '{"a": {"base_url": "http://a"}, "b": {}}'}, ["must be https", "base_url"]),
        ({"MINICHAT_PROVIDERS": '{"a": {"base_url": "https://a", "retries": 9}}'}, ["providers.a.retries"]),
        ({"MINICHAT_PROVIDERS": '{"": {"base_url": 1}, "a": []}'}, ["base_url", "providers.a"]),
    ],
)
def test_wrong_keys_are_left_at_their_defaults_where_a_deployment_is_examined(
    environment: dict[str, str], named: list[str]
) -> None:
    settings, problems = examine({**environment, "MINICHAT_URL_PREFIX": "/kept"})
    assert all(any(key in problem for problem in problems) for key in named)
    assert settings.url_prefix == "/kept"
    if "MINICHAT_PROVIDERS" not in environment:
        assert settings == Settings(url_prefix="/kept")
    with pytest.raises(SettingsError):
        load(environment)


def test_where_nothing_is_wrong_the_examined_settings_are_the_settings() -> None:
    environment = {"MINICHAT_URL_PREFIX": "/chat", "MINICHAT_CLEANUP": '{"max_attempts": 3}'}
    assert examine(environment) == (load(environment), [])


@pytest.mark.parametrize("text", ["cursor_secret: 'hush\nurl_prefix: x", "a: [hush: {", "cursor_secret: !!python hush"])
def test_a_file_that_cannot_be_parsed_is_not_quoted(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"cannot be parsed: .* in line \d") as refused:
        load({"MINICHAT_CONFIG": str(file)})
    assert "hush" not in str(refused.value)


def test_a_secret_is_not_in_the_settings_text() -> None:
    assert "hush" not in repr(load({"MINICHAT_CURSOR_SECRET": "hush"}))


def test_the_shipped_policy_is_valid_and_has_a_default() -> None:
    policy = policy_file(SHIPPED_POLICY, Settings())
    assert policy.model_for_new_chat(None).id == "gpt-4.1"


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("model_catalog", 0, "input_tokens_credit_multiplier_micro"), 0, "input_tokens_credit_multiplier_micro"),
        (
            ("model_catalog", 2, "preference"),
            {"is_default": True},
            r"model_catalog\.2\.preference\.is_default: ",
        ),
        (("model_catalog", 1, "id"), "gpt-4.1", r"model_catalog\.1\.id: .*twice"),
        (("model_catalog", 1, "provider_id"), "acme", r"model_catalog\.1\.provider_id: .*'acme' \(known: openai\)"),
        (("model_catalog", 0, "tier"), "gold", "model_catalog.0.tier"),
        (("policy_version",), 0, "policy_version"),
        (("kill_switches", "disable_everything"), True, "kill_switches.disable_everything"),
    ],
)
def test_a_wrong_policy_names_the_path(tmp_path: Path, path: tuple[str | int, ...], value: object, named: str) -> None:
    policy = json.loads(SHIPPED_POLICY.read_text())
    place = policy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy))
    with pytest.raises(SettingsError, match=named):
        policy_file(file, Settings())
