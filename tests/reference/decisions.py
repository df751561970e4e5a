"""Compiles the default policies into a table (`make decisions`), and that into a page (`make docs`)."""

import json
import re
import subprocess
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import get_args

from cedarpy import PolicySet, Schema, is_authorized, policies_to_json_str, validate_policies

from minichat.domain.actions import CHAT_READS, CHAT_WRITES, ROLES, Action
from minichat.domain.authorization import ANYBODY, RELATIONS, Relation, by_default
from minichat.local.tables import project_root
from tests.reference.markdown import code, page, table

POLICIES = Path("shared/minichat/policies/authorization.cedar")
SCHEMA = POLICIES.with_suffix(".cedarschema")
TABLE = Path("shared/minichat/domain/authorization_table.py")
ACTIONS: tuple[Action, ...] = get_args(Action)
Ids = tuple[str, ...]

_INTRODUCTION = """\
What a caller of each role is answered by default ([authorization](../authorization.md)): 200 stands for whatever the
operation answers when it is permitted. `own` is the caller's, `tenant` another user's of their tenant or the tenant's
itself, `foreign` another tenant's or the deployment's. `support` is while a grant lasts;
without one it is as `user`."""

_HEAD = '''"""What the default policies permit and forbid: made by `make decisions` from `authorization.cedar`.

By role, action, and how the resource stands to the caller: the ids of the policies. `user` is everybody; under a role
is only what it adds.
"""
'''
_TENANTS: dict[str, str] = {"own": "ours", "tenant": "ours", "foreign": "theirs"}


def text() -> str:
    """The default policies."""
    return (project_root() / POLICIES).read_text(encoding="utf-8")


def schema() -> str:
    """What they can speak of."""
    return (project_root() / SCHEMA).read_text(encoding="utf-8")


@cache
def _parsed_schema() -> Schema:
    return Schema.from_str(schema())


@cache
def resource_types() -> dict[str, str]:
    """What each action is about, as the schema says."""
    found: dict[str, str] = {}
    for names, resource in re.findall(
        r'^action ((?:"[a-z_]+:[a-z]+",?\s+)+)in [^{]+{[^}]+resource: (\w+)', schema(), re.M
    ):
        found |= dict.fromkeys(re.findall(r'"([^"]+)"', names), resource)
    return found


@cache
def policy_set(*effects: str) -> PolicySet:
    """The default policies of these effects, each named by its `@id`."""
    said = json.loads(policies_to_json_str(text()))["staticPolicies"].values()
    named = {one["annotations"]["id"]: one for one in said if one["effect"] in effects}
    assert len([one for one in said if one["effect"] in effects]) == len(named), "two policies have one id"
    return PolicySet.from_json_str(json.dumps({"templates": {}, "staticPolicies": named, "templateLinks": []}))


def relations(action: Action) -> tuple[Relation, ...]:
    """How a resource of the action can stand to a caller: what a tenant has is nobody's own."""
    return RELATIONS if resource_types()[action] != "Administration" else RELATIONS[1:]


def evaluated(policies: PolicySet, roles: tuple[str, ...], action: Action, how: Relation) -> tuple[bool, Ids]:
    """Cedar's own decision, and the policies that determined it."""
    me, kind = {"type": "User", "id": "me"}, resource_types()[action]
    tenant = {"__entity": {"type": "Tenant", "id": _TENANTS[how]}}
    owner = {"__entity": me if how == "own" else {"type": "User", "id": "another"}}
    entities = [
        {
            "uid": me,
            "attrs": {"tenant": {"__entity": {"type": "Tenant", "id": "ours"}}},
            "parents": [{"type": "Role", "id": role} for role in roles if role != ANYBODY],
        },
        {
            "uid": {"type": kind, "id": "it"},
            "attrs": {"tenant": tenant} | ({} if kind == "Administration" else {"owner": owner}),
            "parents": [],
        },
    ]
    request = {"principal": me, "action": {"type": "Action", "id": action}, "resource": {"type": kind, "id": "it"}}
    result = is_authorized({**request, "context": {}}, policies, entities, _parsed_schema())
    assert not result.diagnostics.errors
    return result.allowed, tuple(sorted(result.diagnostics.reasons))


def compiled() -> str:
    """The module that holds the table."""
    found = validate_policies(text(), schema())
    assert found.validation_passed, [str(error) for error in found.errors]
    assert set(resource_types()) == set(ACTIONS), set(resource_types()) ^ set(ACTIONS)
    tables = [_table(policy_set("permit")), _table(policy_set("forbid"))]
    return _HEAD + "".join(
        f"\n{name}: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {_shown(table)}\n"
        for name, table in zip(("PERMITS", "FORBIDS"), tables, strict=True)
    )


def _table(policies: PolicySet) -> dict[str, dict[str, dict[str, Ids]]]:
    table: dict[str, dict[str, dict[str, Ids]]] = {}
    for role, action in product((ANYBODY, *ROLES), ACTIONS):
        for how in relations(action):
            anyway = table.get(ANYBODY, {}).get(action, {}).get(how, ())
            added = tuple(one for one in evaluated(policies, (role,), action, how)[1] if one not in anyway)
            if added:
                table.setdefault(role, {}).setdefault(action, {})[how] = added
    return table


def _shown(table: dict[str, dict[str, dict[str, Ids]]]) -> str:
    lines = ["{"]
    for role, actions in table.items():
        lines.append(f'    "{role}": {{')
        for action, by_relation in actions.items():
            shown = ", ".join(
                f'"{how}": ({", ".join(json.dumps(one) for one in ids)}{"," if len(ids) == 1 else ""})'
                for how, ids in by_relation.items()
            )
            lines.append(f'        "{action}": {{{shown}}},')
        lines.append("    },")
    return "\n".join([*lines, "}"])


def formatted(module: str) -> str:
    """A module as the formatter leaves it."""
    ruff = Path(sys.executable).with_name("ruff")
    command = [str(ruff), "format", "--stdin-filename", str(TABLE), "-"]
    made = subprocess.run(command, input=module, capture_output=True, text=True, check=True, cwd=project_root())
    return made.stdout


def answer(role: str, action: Action, how: Relation) -> str:
    """What a caller of that role is answered: 200 for whatever the operation answers when it is permitted."""
    roles = () if role == ANYBODY else (role,)
    if by_default(roles, action, how).decided.allowed:
        return "200"
    is_of_chat = action in CHAT_READS | CHAT_WRITES
    refused = not any(by_default(roles, action, one).decided.allowed for one in relations(action))
    seen = any(by_default(roles, one, how).decided.allowed for one in CHAT_READS)
    return "404" if is_of_chat and not refused and not seen else "403"


def write() -> str:
    """The page of all decisions."""
    rows = [
        (code(action), how, *(answer(role, action, how) for role in (ANYBODY, *ROLES)))
        for action in ACTIONS
        for how in relations(action)
    ]
    return page("# Decisions", _INTRODUCTION, table(("action", "resource", ANYBODY, *ROLES), rows))


def main() -> None:
    """Writes the table."""
    (project_root() / TABLE).write_text(formatted(compiled()), encoding="utf-8")
