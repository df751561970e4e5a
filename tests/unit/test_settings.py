"""Settings come from the environment and a file, and a wrong one says its name."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from minichat.provider_entries import Provider
from minichat.services.policy_in_force import SHIPPED_POLICY, policy_file
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


def test_a_variable_of_one_setting_wins_over_one_of_its_group_whichever_comes_first() -> None:
    group, one = ("MINICHAT_AUTH", '{"audience": "theirs", "tenant": "acme"}'), ("MINICHAT_AUTH__AUDIENCE", "ours")
    for said in ([group, one], [one, group]):
        auth = load(dict(said)).auth
        assert (auth.audience, auth.tenant) == ("ours", "acme")


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
        ({"MINICHAT_PROVIDERS": '{"a": {"kind": "gemini", "base_url": "https://x"}}'}, "providers.a.kind"),
        ({"MINICHAT_AUTH__DEVELOPMENT_USER": "u"}, "development_tenant"),
        ({"MINICHAT_URL_PREFIX": "no-slash"}, "url_prefix"),
        ({"MINICHAT_CONFIG": "/nowhere.json"}, "/nowhere.json"),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load(environment)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({}, "base_url"),
        ({"base_url": "ftp://models.example"}, "must be https"),
        ({"base_url": "https://"}, "must name a host"),
        ({"base_url": "https://api.openai.com@elsewhere.example"}, "neither a user"),
        ({"base_url": "https://models.example?to=elsewhere"}, "nor a query"),
        ({"base_url": "https://models.example", "api_path": "v1"}, "api_path"),
        ({"base_url": "https://models.example", "api_path": "/v1?x=1"}, "api_path"),
        ({"base_url": "https://models.example", "allowed_hosts": ["*.models.example"]}, "allowed_hosts"),
        ({"base_url": "https://evilmodels.example", "allowed_hosts": ["models.example"]}, "allowed_hosts"),
        ({"base_url": "https://models.example", "tenant_overrides": {"t": {"base_url": "http://x"}}}, "https"),
        (
            {
                "base_url": "https://models.example",
                "allowed_hosts": ["models.example"],
                "tenant_overrides": {"t": {"base_url": "https://elsewhere.example"}},
            },
            "allowed_hosts",
        ),
        ({"base_url": "https://models.example", "tenant_overrides": {"t": {"kind": "openai_chat"}}}, "t.kind"),
        ({"base_url": "https://models.example", "api_version": "preview"}, "azure_openai_responses"),
        ({"base_url": "https://models.example", "max_tokens_field": "max_tokens"}, "openai_chat"),
        ({"base_url": "https://models.example", "region": "us-east-1"}, "bedrock_converse"),
        ({"base_url": "https://models.example", "kind": "bedrock_converse"}, "needs a region"),
        ({"kind": "bedrock_converse", "region": "us-east-1", "api_path": "/model"}, "needs a region, and {model}"),
        ({"base_url": "https://models.example", "auth": {"header": "a b", "secret": {"name": "K"}}}, "auth.header"),
        ({"base_url": "https://models.example", "auth": {"secret": {"source": "vault", "name": "K"}}}, "secret.source"),
    ],
)
def test_a_wrong_provider_is_named(said: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=r"providers\.a.*" + re.escape(named)):
        load({"MINICHAT_PROVIDERS": json.dumps({"a": said})})


def a_provider(**said: Any) -> Provider:
    return load({"MINICHAT_PROVIDERS": json.dumps({"a": said})}).providers["a"]


@pytest.mark.parametrize(
    ("kind", "path", "header", "prefix"),
    [
        ("openai_responses", "/v1/responses", "Authorization", "Bearer "),
        ("azure_openai_responses", "/openai/v1/responses", "api-key", ""),
        ("openai_chat", "/v1/chat/completions", "Authorization", "Bearer "),
        ("anthropic_messages", "/v1/messages", "x-api-key", ""),
    ],
)
def test_each_kind_has_its_path_and_header(kind: str, path: str, header: str, prefix: str) -> None:
    secret = {"secret": {"source": "ssm", "name": "/minichat/key"}}
    entry = a_provider(
        kind=kind, base_url="https://models.example", auth=secret, tenant_overrides={"t": {"auth": secret}}
    )
    for seen in (entry, entry.of_tenant("t")):
        assert seen.auth is not None
        assert (seen.api_path, seen.auth.header, seen.auth.prefix) == (path, header, prefix)
    other = a_provider(kind=kind, base_url="https://models.example", api_path="/x", auth={"header": "k", **secret})
    assert other.auth is not None
    assert (other.api_path, other.auth.header, other.auth.prefix) == ("/x", "k", prefix)


def test_bedrock_is_where_its_region_is_and_needs_no_key() -> None:
    entry = a_provider(kind="bedrock_converse", region="eu-west-1")
    assert (entry.base_url, entry.auth) == ("https://bedrock-runtime.eu-west-1.amazonaws.com", None)


def test_a_tenants_override_replaces_what_it_says_and_nothing_else() -> None:
    entry = a_provider(
        base_url="https://eu.models.example",
        allowed_hosts=["*.models.example"],
        auth={"secret": {"name": "OURS"}},
        retries=1,
        tenant_overrides={
            "acme": {"base_url": "https://us.Models.example"},
            "globex": {"auth": {"secret": {"name": "T"}}},
        },
    )
    acme, globex = entry.of_tenant("acme"), entry.of_tenant("globex")
    assert (acme.base_url, acme.auth, acme.retries) == ("https://us.Models.example", entry.auth, 1)
    assert globex.auth is not None
    assert (globex.base_url, globex.auth.secret.name) == (entry.base_url, "T")
    assert entry.of_tenant("initech") == entry


def test_the_key_of_an_entry_goes_to_no_host_that_nobody_vouched_for() -> None:
    elsewhere = {"acme": {"base_url": "https://acme.example"}}
    with pytest.raises(SettingsError, match=r"tenant_overrides\.acme: a base_url needs an auth"):
        a_provider(base_url="https://models.example", auth={"secret": {"name": "OURS"}}, tenant_overrides=elsewhere)


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
@pytest.mark.holds("turns.publish-path")
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
