"""Which tenant an operator's command is about."""

import argparse
from pathlib import Path

import pytest

from minichat.cli import target
from minichat.local.issuer import as_uuid
from minichat.settings import SettingsError


@pytest.mark.parametrize("where", [{"local": True, "state": None}, {"local": False, "state": Path("data")}])
def test_a_tenant_of_the_local_stack_has_the_name_that_its_tokens_have(where: dict[str, object]) -> None:
    assert target.tenant(argparse.Namespace(tenant="acme", **where)) == as_uuid("acme")


def test_a_name_is_refused_where_it_stands_for_no_tenant() -> None:
    elsewhere = argparse.Namespace(tenant="acme", local=False, state=None)
    with pytest.raises(SettingsError, match="--tenant: 'acme' is no UUID"):
        target.tenant(elsewhere)
    elsewhere.tenant = as_uuid("acme").upper()
    assert target.tenant(elsewhere) == as_uuid("acme")
