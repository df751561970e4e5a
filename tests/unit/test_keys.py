"""The issuer's keys: read when needed, kept while the issuer is silent, asked for again but not too often."""

import json
from pathlib import Path

import pytest

from minichat.domain.errors import ServiceUnavailable, Unauthenticated
from minichat.http import auth
from minichat.http.auth import SigningKeys
from minichat.local.issuer import KEY_ID, Issuer


async def test_keys_that_cannot_be_read_are_the_services_trouble_and_not_the_callers(tmp_path: Path) -> None:
    keys = SigningKeys(str(tmp_path / "nowhere.json"))
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            await keys.key(KEY_ID)


async def test_known_keys_stay_good_while_the_issuer_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Issuer(tmp_path).jwks_file
    keys = SigningKeys(str(file))
    first = await keys.key(KEY_ID)
    file.unlink()
    monkeypatch.setattr(auth, "KEYS_LIFESPAN_SECONDS", -1)
    monkeypatch.setattr(auth, "UNKNOWN_KEY_COOLDOWN_SECONDS", -1)
    assert await keys.key(KEY_ID) is first


async def test_a_new_key_is_found_and_an_unknown_one_is_asked_for_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Issuer(tmp_path).jwks_file
    keys = SigningKeys(str(file))
    await keys.key(KEY_ID)
    document = json.loads(file.read_text())
    document["keys"][0]["kid"] = "rotated"
    file.write_text(json.dumps(document))
    with pytest.raises(Unauthenticated):
        await keys.key("rotated")
    monkeypatch.setattr(auth, "UNKNOWN_KEY_COOLDOWN_SECONDS", -1)
    await keys.key("rotated")
    with pytest.raises(Unauthenticated):
        await keys.key(KEY_ID)
