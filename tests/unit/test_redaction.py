"""What audit records may hold: each rule with what it takes and what it must leave, and what holds for any text.

Secrets are put together at run time, so that nobody's scanner finds one in this file.
"""

import json
import time
from base64 import b64encode, urlsafe_b64encode
from hashlib import sha256, sha512
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minichat.domain.redaction import CUT, MAX_BYTES, RULES, Json, redact, redact_text


def noise(length: int, alphabet: str = "aB3dEf7hIjK1mNoP9qRsTuV5xYz0") -> str:
    """Text that looks random and is the same in every run."""
    return "".join(alphabet[byte % len(alphabet)] for byte in sha512(bytes(length)).digest() * (length // 64 + 1))[
        :length
    ]


def segment(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


JWT = ".".join((segment('{"alg":"RS256","typ":"JWT"}'), segment('{"sub":"42","exp":1893456000}'), noise(43)))
JWE = ".".join((segment('{"alg":"dir","enc":"A256GCM"}'), "", noise(16), noise(40), noise(22)))
OPENAI = "sk-" + noise(48)
AWS = "AKI" + "A" + noise(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
AZURE_STORAGE = b64encode(sha512(b"storage").digest()).decode()
AZURE_BUS = b64encode(sha256(b"bus").digest()).decode()
AZURE_OPENAI = noise(52) + "JQQJ" + "99" + noise(26)
AZURE_CLIENT = noise(3) + "8Q" + "~" + noise(34)
PEM_LINES = [noise(64) for _ in range(6)] + [noise(22) + "=="]


def pem(label: str, newline: str = "\n", *, end: bool = True) -> str:
    lines = [f"-----BEGIN {label}-----", *PEM_LINES, *([f"-----END {label}-----"] if end else [])]
    return newline.join(lines)


def check(text: str, expected: str) -> None:
    assert redact_text(text) == expected
    assert redact_text(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Authorization: Bearer {noise(24)}", "Authorization: Bearer [redacted:bearer]"),
        (f"authorization:bearer {noise(8)}", "authorization:bearer [redacted:bearer]"),
        (f'{{"Authorization": "Bearer {noise(40)}"}}', '{"Authorization": "Bearer [redacted:bearer]"}'),
        (f"use BEARER  {noise(20)}-_.~+/= now", "use BEARER  [redacted:bearer] now"),
        (f"?h=Bearer%20{noise(30)}&x=1", "?h=Bearer%20[redacted:bearer]&x=1"),
        (f"Authorization: Basic {b64encode(b'ann:swordfish').decode()}", "Authorization: Basic [redacted:bearer]"),
    ],
)
def test_bearer_tokens_go(text: str, expected: str) -> None:
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (JWT, "[redacted:jwt]"),
        (JWE, "[redacted:jwt]"),
        (f"Bearer {JWT}, then", "Bearer [redacted:jwt], then"),
        (f"<{JWT.rsplit('.', 1)[0]}.>", "<[redacted:jwt]>"),
        (f"next%3D{JWT}", "next%3D[redacted:jwt]"),
        (json.dumps(f"first\n{JWT}"), r'"first\n[redacted:jwt]"'),
    ],
)
def test_json_web_tokens_go(text: str, expected: str) -> None:
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPENAI, "[redacted:openai-key]"),
        (f"sk-proj-{noise(60)}_{noise(60)}-{noise(12)}", "[redacted:openai-key]"),
        (f"sk-svcacct-{noise(40)}", "[redacted:openai-key]"),
        (f"sk-ant-api03-{noise(80)}-{noise(10)}AA", "[redacted:openai-key]"),
        (f"my key is {OPENAI}.", "my key is [redacted:openai-key]."),
        (f'OpenAI("{OPENAI}")', 'OpenAI("[redacted:openai-key]")'),
    ],
)
def test_openai_style_keys_go(text: str, expected: str) -> None:
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AWS, "[redacted:aws-key-id]"),
        ("ASI" + AWS[3:], "[redacted:aws-key-id]"),
        (f"aws_access_key_id = {AWS}\n", "aws_access_key_id = [redacted:aws-key-id]\n"),
        (f"X-Amz-Credential={AWS}%2F20260101%2Feu", "X-Amz-Credential=[redacted:aws-key-id]%2F20260101%2Feu"),
    ],
)
def test_aws_access_key_ids_go(text: str, expected: str) -> None:
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AZURE_STORAGE, "[redacted:azure-key]"),
        (AZURE_BUS, "[redacted:azure-key]"),
        (f"it is {AZURE_OPENAI}!", "it is [redacted:azure-key]!"),
        (f"secret value ({AZURE_CLIENT})", "secret value ([redacted:azure-key])"),
        (
            f"AccountName=shop;AccountKey={AZURE_STORAGE};EndpointSuffix=core.windows.net",
            "AccountName=shop;AccountKey=[redacted:api-key];EndpointSuffix=core.windows.net",
        ),
        (
            f"SharedAccessKeyName=root;SharedAccessKey={AZURE_BUS}",
            "SharedAccessKeyName=root;SharedAccessKey=[redacted:api-key]",
        ),
        (
            "https://shop.blob.core.windows.net/c?sp=r&sig=a%2Fb%3D&se=2026",
            "https://shop.blob.core.windows.net/c?sp=r&sig=[redacted:api-key]&se=2026",
        ),
        ("api-key: 0123456789abcdef0123456789abcdef", "api-key: [redacted:api-key]"),
    ],
)
def test_azure_keys_go(text: str, expected: str) -> None:
    check(text, expected)


FIELD_SHAPES = [
    "{name}={secret}",
    "{name} = {secret}",
    "{name}: {secret}",
    "https://api.example.com/v1?q=1&{name}={secret}&page=2",
    "https://example.com/?next=%2Fhome%3F{name}%3D{secret}",
    "X-{name}: {secret}\r\nAccept: */*",
    "curl -H '{name}: {secret}' https://example.com",
    '{{"{name}": "{secret}", "n": 1}}',
    '{{"{name}":"{secret}"}}',
    '"{{\\"{name}\\": \\"{secret}\\", \\"n\\": 1}}"',
    "{{'{name}': '{secret}'}}",
    "a:\n  {name}: {secret}\n  b: 1",
    'a:\n  {name}: "{secret}" # rotate\n',
    "export MY_{name}={secret}\nls",
    'connect({name}="{secret}", retries=3)',
    "connect(user=ann, {name}={secret}, retries=3)",
    "Server=db;{name}={secret};Encrypt=yes",
    "{name} => '{secret}',",
    "let {name} := `{secret}`;",
    "(my {name}: {secret})",
]


@pytest.mark.parametrize("shape", FIELD_SHAPES)
@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "apikey",
        "API-KEY",
        "apiKey",
        "client_secret",
        "ClientSecret",
        "access_token",
        "aws_secret_access_key",
    ],
)
def test_fields_that_name_a_secret_lose_their_value_in_every_notation(shape: str, name: str) -> None:
    check(shape.format(name=name, secret="s3cr3t-Value"), shape.format(name=name, secret="[redacted:api-key]"))


@pytest.mark.parametrize("shape", FIELD_SHAPES)
@pytest.mark.parametrize("name", ["password", "PASSWORD", "db_password", "passwd", "passphrase", "pwd"])
def test_passwords_go_in_every_notation(shape: str, name: str) -> None:
    check(shape.format(name=name, secret="swordfish"), shape.format(name=name, secret="[redacted:password]"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=p,a(s)s&x=1", "password=[redacted:password]&x=1"),
        ("password=$ecret", "password=[redacted:password]"),
        ("password=Summer(2024)", "password=[redacted:password])"),
        ('password="two words, and \\"quotes\\"" x', 'password="[redacted:password]" x'),
        ('password="never closed', 'password="[redacted:password]'),
        ("password: hunter2 and then log in", "password: [redacted:password] and then log in"),
        (f"password={JWT}", "password=[redacted:password]"),
        ("password=a password=b", "password=[redacted:password] password=[redacted:password]"),
    ],
)
def test_a_password_goes_whole(text: str, expected: str) -> None:
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[
            (f"a\n{pem(label)}\nb", "a\n[redacted:private-key]\nb")
            for label in (
                "PRIVATE KEY",
                "RSA PRIVATE KEY",
                "EC PRIVATE KEY",
                "OPENSSH PRIVATE KEY",
                "PGP PRIVATE KEY BLOCK",
            )
        ],
        (pem("ENCRYPTED PRIVATE KEY", "\r\n"), "[redacted:private-key]"),
        (json.dumps(f"k {pem('PRIVATE KEY')} k"), '"k [redacted:private-key] k"'),
        (json.dumps(json.dumps(pem("PRIVATE KEY"))), '"\\"[redacted:private-key]\\""'),
        (pem("PRIVATE KEY", " "), "[redacted:private-key]"),
        (pem("PRIVATE KEY", end=False), "[redacted:private-key]"),
        (pem("PRIVATE KEY", "\\n", end=False) + ". So", "[redacted:private-key]. So"),
        (f"{pem('PRIVATE KEY')}\n{pem('EC PRIVATE KEY')}", "[redacted:private-key]\n[redacted:private-key]"),
        (f"{pem('PRIVATE KEY', end=False)}\n{pem('EC PRIVATE KEY')}", "[redacted:private-key]\n[redacted:private-key]"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nabc=\n-----END RSA PRIVATE KEY-----",
            "[redacted:private-key]",
        ),
    ],
)
def test_pem_private_keys_go(text: str, expected: str) -> None:
    check(text, expected)


ISSUED = {
    "github-token": [
        "gh" + "p_" + noise(36),
        "gh" + "s_" + noise(36),
        "github" + "_pat_" + noise(22) + "_" + noise(59),
    ],
    "gitlab-token": [
        *("gl" + kind + "-" + noise(20) for kind in ("pat", "oas", "dt", "rt", "rtr", "cbt", "ptt", "ft", "imt")),
        *("gl" + kind + "-" + noise(20) for kind in ("agent", "wt", "soat", "ffct")),
        "gl" + "pat-" + noise(27) + ".01.0z1abcdef",
        "GR" + "1348941" + noise(20),
    ],
    "slack-token": [
        "xo" + "xb-" + "1234567890-" + noise(24),
        "xo" + "xe.xoxp-1-" + noise(60),
        "xa" + "pp-1-A012345-" + noise(30),
        "hooks.slack" + ".com/services/T0123/B0456/" + noise(24),
    ],
    "google-key": [
        "AI" + "za" + noise(35),
        "GO" + "CSPX-" + noise(28),
        "ya" + "29." + noise(120),
        "ya" + "29.c." + noise(120),
        "ya" + "29.c.b0" + noise(120),
        "1/" + "/0" + noise(60),
    ],
    "stripe-key": [
        "sk" + "_live_" + noise(24),
        "rk" + "_test_" + noise(99),
        "sk" + "_org_live_" + noise(32),
        "whs" + "ec_" + noise(32),
    ],
    "npm-token": ["np" + "m_" + noise(36)],
    "pypi-token": ["py" + "pi-AgEIcHlwaS5vcmc" + noise(120)],
}


@pytest.mark.parametrize(("kind", "token"), [(kind, token) for kind, tokens in ISSUED.items() for token in tokens])
def test_tokens_that_say_who_issued_them_go(kind: str, token: str) -> None:
    check(token, f"[redacted:{kind}]")
    check(f"use {token}, please", f"use [redacted:{kind}], please")
    check(f'{{"auth": "{token}"}}', f'{{"auth": "[redacted:{kind}]"}}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://ann:sword@db.example/app", "postgres://ann:[redacted:password]@db.example/app"),
        (
            "postgresql+psycopg://ann:s%40w?rd!@10.0.0.1:5432",
            "postgresql+psycopg://ann:[redacted:password]@10.0.0.1:5432",
        ),
        ("mongodb+srv://ann:sword@c0.mongodb.net/?w=1", "mongodb+srv://ann:[redacted:password]@c0.mongodb.net/?w=1"),
        ("redis://:sword@cache:6379/0", "redis://:[redacted:password]@cache:6379/0"),
        (
            "amqps://a:b@[::1]/v and https://c:d@e.example/",
            "amqps://a:[redacted:password]@[::1]/v and https://c:[redacted:password]@e.example/",
        ),
        # Not escaped, as people type it.
        ("postgres://ann:sw/ord@db.example/app", "postgres://ann:[redacted:password]@db.example/app"),
        ("postgres://ann:sw@rd@db:5432/app?x=a@b", "postgres://ann:[redacted:password]@db:5432/app?x=a@b"),
        ("jdbc:oracle:thin:scott/tiger@//db:1521/x", "jdbc:oracle:thin:scott/[redacted:password]@//db:1521/x"),
        ("DRIVER={ODBC};UID=ann;PWD={sw;ord}", "DRIVER={ODBC};UID=ann;PWD=[redacted:password]"),
        ("Server=db;User Id=ann;Password=sword;", "Server=db;User Id=ann;Password=[redacted:password];"),
        (
            "AccountName=a;AccountKey=c3dvcmQ=;EndpointSuffix=b",
            "AccountName=a;AccountKey=[redacted:api-key];EndpointSuffix=b",
        ),
    ],
)
def test_connection_strings_lose_their_password(text: str, expected: str) -> None:
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (noise(201), "[redacted:base64]"),
        (f"see {b64encode(bytes(range(256))).decode()}.", "see [redacted:base64]."),
        (f"data:image/png;base64,{noise(5000)}==", "data:image/png;base64,[redacted:base64]"),
        ("0123456789abcdef" * 13, "[redacted:base64]"),
    ],
)
def test_runs_like_base64_over_200_characters_go(text: str, expected: str) -> None:
    check(text, expected)


@pytest.mark.parametrize(
    "text",
    [
        # bearer
        "The bearer of this letter may enter.",
        "Send it as a Bearer token (RFC 6750): `Authorization: Bearer <token>`",
        "the standard-bearer 2024",
        # jwt
        segment('{"alg":"RS256","typ":"JWT"}'),
        "eyJ.eyJ.x",
        "minichat.domain.redaction",
        # openai
        "sk-learn and sk-estimator-html-doc-link",
        "task-0123456789abcdef0123456789abcdef",
        f"disk-{noise(30)}",
        "sk-proj-" + noise(8),
        # aws
        AWS[:-1],
        AWS + "A",
        AWS.lower(),
        f"X{AWS}",
        # issued
        "gh" + "p_" + noise(35),
        "github_patient, gitlab-runner, glpattern-matching, npm_config_registry, pypi-server 2.0",
        "xoxo-hugs, AIzawa, whsec_ is how it starts, sk_live_ too",
        "np" + "m_" + noise(36) + "x",
        # connection strings
        "http://localhost:8080/@scope/name and https://example.com:443/a:b@c",
        "mailto:ann@example.com, ssh git@github.com:org/repo.git",
        # azure
        f'"integrity": "sha512-{AZURE_STORAGE}"',
        f"<script integrity=sha256-{AZURE_BUS}>",
        f"golang.org/x/text v0.14.0 h1:{AZURE_BUS}",
        AZURE_BUS[1:],
        AZURE_OPENAI.replace("JQQJ", "JQQI"),
        # fields
        "an API key: where do I get one?",
        "API keys: one for each service",
        "max_tokens=500, tokens: 12, token = next(tokens)",
        "access_token_expires_in=3600",
        "api_key=os.environ['API_KEY'], api_key=settings.api_key",
        "api_key: str | None = None",
        "api_key=${API_KEY} --set api_key=$API_KEY client_secret={{ secret }} api_key=<your key>",
        "API key: https://platform.example.com/api-keys",
        "if api_key == other or api_key != another: api_key = None",
        '{"api_key": "", "client_secret": null}',
        "secret_ref: minichat/openai",
        # password
        "Password: must have at least eight letters",
        "def login(user: str, password: str) -> None:",
        "password = getpass.getpass()",
        "password = read_secret(name)",
        "password_hash=5f4dcc3b5aa765d61d8327deb882cf99",
        "SELECT password FROM users",
        "passwords: 3 of them",
        "PWD=/home/ann OLDPWD=~/x",
        "const password: string; let secret = this.secret;",
        # pem
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----",
        "BEGIN PRIVATE KEY",
        # base64
        noise(200),
        "=" * 400,
        "-" * 300 + "\n| a | b |\n" + "+---" * 100,
        "https://example.com/" + "/".join(["a-page-with-a-name"] * 20),
        # and everything else
        "Zażółć gęślą jaźń, 你好, 👩‍👩‍👧, مرحبا",
        "0 -1 3.14159 1e308 " + "7" * 200,
        "550e8400-e29b-41d4-a716-446655440000 / 550e8400e29b41d4a716446655440000",
        "https://user@example.com:8443/a/b;c?q=1&r=%20#frag",
        "git commit 5f4dcc3b5aa765d61d8327deb882cf995f4dcc3b",
        "for i in range(10):\n    print(f'{i:>3}', d['key'])  # key: value\n",
        '{"event_type": "turn_failed", "dedupe_key": "a/b/c", "n": [1, 2.5, null, true]}',
        "",
    ],
)
def test_what_is_no_secret_survives(text: str) -> None:
    assert redact_text(text) == text


HOSTILE = [
    "eyJ",
    "-eyJaaaaa",
    "eyJaaaaa.",
    "%3DeyJ",
    "\\neyJ",
    "sk-",
    "sk-proj-",
    "bearer ",
    "Bearer%20",
    "bearer a",
    "authorization: bearer ",
    "password",
    "password:",
    "password: a ",
    "password:a",
    "password=a,b",
    'password="',
    'password=\\"',
    "password=\\\\\\",
    "api key ",
    "secret secret",
    "secret_access",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n" + "A" * 20,
    "-----BEGIN PRIVATE KEY-----\\n",
    "-",
    "=",
    "A1b",
    "8Q~",
    "a://",
    "a://b:",
    "a://b:c@",
    "a://b:@@@@",
    "jdbc:oracle:thin:a/",
    ";pwd={",
    "GR1348941",
    "ghp_",
    "glpat-",
    "xoxb-",
    "ya29.",
    "[redacted:",
]


def cost(text: str) -> float:
    started = time.process_time()
    redact_text(text)
    return time.process_time() - started


def test_text_that_is_made_to_hurt_costs_like_any_other() -> None:
    size = 20_000  # what is quadratic costs a hundred times as much here; the worst honest case costs four times
    plain = min(cost("All the world's a stage. " * (size // 25)) for _ in range(3))
    texts = [text * (size // len(text)) + end for text in HOSTILE for end in ("", " x")]
    slow = [text[:40] for text in texts if cost(text) > 10 * plain and cost(text) > 10 * plain]
    assert slow == []


fragments = st.sampled_from(
    [
        JWT,
        OPENAI,
        AWS,
        AZURE_BUS,
        AZURE_OPENAI,
        pem("PRIVATE KEY"),
        noise(250),
        *(tokens[0] for tokens in ISSUED.values()),
        "redis://:sword@cache",
        *HOSTILE,
        "\n",
        " ",
        "=",
        ": ",
        "'",
        "é",
    ]
)
texts = st.lists(st.one_of(fragments, st.text(max_size=8)), max_size=12).map("".join)
long_texts = st.builds(lambda text, before, after: before + text * 200 + after, texts, texts, texts)


@given(st.one_of(texts, long_texts))
@settings(max_examples=40)
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once) == once


@given(st.one_of(texts, long_texts, st.text()))
@settings(max_examples=40)
def test_what_is_left_is_short_and_matches_no_rule(text: str) -> None:
    left = redact_text(text)
    assert len(left.encode("utf-8", "surrogatepass")) <= MAX_BYTES
    # A cut takes away what made a word none: of `password:authorization: bearer …` the half would be taken for one.
    judging = [rule for rule in RULES if not (left.endswith(CUT) and rule.kind == "password")]
    assert all(rule.apply(left) == left for rule in judging)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=50), st.sampled_from([JWT, OPENAI, AWS, AZURE_STORAGE]))
def test_a_secret_among_words_is_found_and_the_words_stay(words: str, secret: str) -> None:
    assert secret not in redact_text(f"{words} {secret} {words}")


@given(st.lists(st.text(alphabet="abcdefghijklmnopqrstuvwxyzäß", min_size=1, max_size=20)).map(" ".join))
def test_words_survive(text: str) -> None:
    assert redact_text(text) == text


@given(st.one_of(st.uuids().map(str), st.integers().map(str), st.floats().map(str), st.datetimes().map(str)))
def test_ids_numbers_and_times_survive(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize("character", ["a", "é", "你", "👍"])
def test_a_string_is_cut_at_8_kib_between_characters(character: str) -> None:
    width = len(character.encode())
    whole = " " + (character + " ") * ((MAX_BYTES - 1) // (width + 1))
    assert redact_text(whole) == whole
    for spaces in range(1, 6):
        kept = redact_text(" " * spaces + whole + " " * 5)
        assert kept.endswith(CUT)
        assert MAX_BYTES - width < len(kept.encode()) <= MAX_BYTES
        assert (" " * spaces + whole).startswith(kept.removesuffix(CUT))


def test_a_secret_is_redacted_before_the_cut_and_its_mark_is_not_torn() -> None:
    for place in range(MAX_BYTES - 60, MAX_BYTES, 3):
        left = redact_text("." * place + " " + OPENAI + " and on " + "." * 100)
        assert "sk-" not in left
        assert "[redacted:openai-key]" in left or "[r" not in left


def test_a_bracket_at_the_cut_that_is_no_mark_stays() -> None:
    for words in ("[", "[redact", "[redacted by hand", "[see below", "[redacted: "):
        left = redact_text("." * (MAX_BYTES - len(CUT) - len(words)) + words + "." * 100).removesuffix(CUT)
        assert left.endswith(words) is not "[redacted:".startswith(words[:10])


def test_half_a_character_is_no_reason_to_fail() -> None:
    assert redact_text("\ud800") == "\ud800"
    assert redact_text("\ud800" * MAX_BYTES).endswith(CUT)


def test_every_string_of_a_value_is_redacted() -> None:
    value: Json = {
        "n": 1,
        "ok": True,
        "none": None,
        "turn_id": "550e8400-e29b-41d4-a716-446655440000",
        "prompt": f"use {OPENAI}",
        "tools": [{"arguments": [f"Bearer {JWT}", 2.5]}],
        AWS: "a name can be a secret too",
    }
    assert redact(value) == {
        "n": 1,
        "ok": True,
        "none": None,
        "turn_id": "550e8400-e29b-41d4-a716-446655440000",
        "prompt": "use [redacted:openai-key]",
        "tools": [{"arguments": ["Bearer [redacted:jwt]", 2.5]}],
        "[redacted:aws-key-id]": "a name can be a secret too",
    }


def test_a_member_that_names_a_secret_loses_its_value_whole() -> None:
    assert redact(
        {"Password": "two words", "x-api-key": 12345, "client_secret": None, "api_key": "", "secret": True}
    ) == {
        "Password": "[redacted:password]",
        "x-api-key": "[redacted:api-key]",
        "client_secret": None,
        "api_key": "",
        "secret": True,
    }


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


@given(json_values)
@settings(max_examples=40)
def test_redacting_a_value_twice_changes_nothing(value: Json) -> None:
    once = redact(value)
    assert redact(once) == once


@given(st.lists(st.uuids(), max_size=5))
def test_ids_in_a_value_survive(ids: list[UUID]) -> None:
    value: Json = {str(index): str(each) for index, each in enumerate(ids)}
    assert redact(value) == value
