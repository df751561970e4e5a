"""Text without the secrets that people paste into chats: what an audit record may hold (events-and-workers 2).

Every rule takes linear time over any text: repetitions are possessive or bounded, and a pattern that reads to the end
of a word starts only where the word does. In doubt a rule takes too much: a lost word costs less than a leaked key.
"""

import re
from typing import NamedTuple, TypeAlias

MAX_BYTES = 8 * 1024
"""The longest string that is kept, in bytes of UTF-8, with the mark of the cut."""

CUT = "[cut at 8 KiB]"

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


class Rule(NamedTuple):
    """A shape of secret and the kind that its mark names. Of a match, the group `kept` stays."""

    kind: str
    pattern: re.Pattern[str]

    @property
    def mark(self) -> str:
        """What stands where the secret stood."""
        return f"[redacted:{self.kind}]"

    def apply(self, text: str) -> str:
        """The text with a mark in place of each secret of this shape."""
        kept = r"\g<kept>" if "kept" in self.pattern.groupindex else ""
        return self.pattern.sub(kept + self.mark, text)


# URLs write %3D before a secret, and JSON within JSON writes \n: both end in a letter that is no part of it.
_AFTER_ESCAPE = r"(?<=%[0-9A-Fa-f][0-9A-Fa-f])|(?<=\\[nrt])"
_START = rf"(?:(?<![A-Za-z0-9])|{_AFTER_ESCAPE})"
_WORD = r"[A-Za-z0-9_-]"
_WORD_START = rf"(?:(?<!{_WORD})|{_AFTER_ESCAPE})"

_PEM_LABEL = r"(?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_PEM_BODY = r"[^-]*+(?:-(?!----(?:BEGIN|END) )[^-]*+)*+"
_NEWLINE = r"(?:\s|\\+[nr])"
# A key that lost its end goes as far as its lines look like lines of a key.
_PEM_LINES = rf"(?:(?:{_NEWLINE}*+[A-Za-z0-9+/=]{{16,}}+)++(?:{_NEWLINE}++[A-Za-z0-9+/=]{{1,64}}+)?)?"

_LOGIN_NAMES = r"pass(?:word|wd|phrase)|pwd(?![^\w\s]{1,4}[/~])"
_KEY_NAMES = (
    r"api[ _-]?key|secret(?:[ _-]?access)?(?:[ _-]?key)?"
    r"|(?:account|subscription|encryption|private|shared[ _-]?access)[ _-]?key"
    r"|(?:access|refresh|auth|session|security)[ _-]?token"
    r"|(?<=[?&])(?:token|sig|x-amz-signature)"
)
# What programs and documents put in place of a secret: nothing, a type, a variable, a call, where to look.
_CODE = (
    r"(?:none|null|nil|true|false|undefined|required|optional|str|string|bytes|bool|int|any|secretstr)(?![\w-])"
    r"|(?:self|this|settings|config|os|env|process|args|options|request|props)\.[a-z]"
    r"|[a-z_][a-z_.]{0,64}(?:\((?=[)\"'a-z_])|\[(?=[\"'a-z_]))"
    r"|\$(?:[{(]|(?-i:[A-Z_]{1,64}+(?![\w-])))"
    r"|https?://|(?:bearer|basic)\s"
)
_PLAIN = r"[^\s\"'`&;,<>()\[\]{}\\]"
# Punctuation within a word belongs to it, unless the next field follows.
_MORE = rf"(?:{_PLAIN}|\\(?![nrt\"'\\])|[,()\[\]{{}}](?=[A-Za-z0-9])(?!\w{{1,40}}+ ?[=:]))"
_ALONE = r"(?=[ \t]{0,8}(?:[\r\n,;})\]\"'`&<]|\\+[nr\"']|#|\Z))"


def _field(kind: str, names: str) -> Rule:
    """The rule for `name=value` and its kin in query strings, headers, JSON, YAML and programs.

    A bare word after a colon is a value when it ends its line or is no plain word: "password: at least eight letters"
    is prose, "password: swordfish" on its own is YAML.
    """
    name = rf"(?i:{names})(?:\\{{0,8}}[\"'`])?[ \t]{{0,8}}"
    quote = r"(?::=|=>|=(?!=)|:(?!:))[ \t]{0,8}(?P<quote>\\{0,8}[\"'`])"
    equals = r"(?P<equals>:=|=>|=(?!=)|%3[Dd])[ \t]{0,8}"
    colon = r":(?![:=]|//)[ \t]{0,8}"
    quoted = r"(?:(?!(?P=quote))(?:\\.|[^\r\n]))++"
    word = rf"{_PLAIN}{_MORE}{{0,255}}+{_ALONE}"
    telling = rf"(?={_PLAIN}{{0,64}}?[0-9@#$%^*!]){_PLAIN}{{6}}{_MORE}*+"
    bare = rf"(?!(?i:{_CODE}))(?(equals){_PLAIN}{_MORE}*+|(?:{telling}|{word}))"
    return Rule(kind, re.compile(rf"(?P<kept>{name}(?:{quote}|{equals}|{colon}))(?(quote){quoted}|{bare})"))


_NOT_IN_URLS = r"\s\"'`<>"
_BEARER = r"[A-Za-z0-9._~+/=-]"  # RFC 6750, and what comes close
_BASE64 = r"[A-Za-z0-9+/=_-]"
_MIXED = r"(?=[a-z0-9+/]{0,85}[A-Z])(?=[A-Z0-9+/]{0,85}[a-z])(?=[A-Za-z+/]{0,85}[0-9])"
# Lock files and pages are full of digests that have an account key's length.
_NO_DIGEST = r"(?<!sha256-)(?<!sha512-)(?<!h1:)"

_END = r"(?![A-Za-z0-9])"
# Tokens that say who issued them, in the forms that the issuers' own scanners look for.
_ISSUED = {
    "github-token": rf"gh[pousr]_[A-Za-z0-9]{{36,255}}+{_END}|github_pat_[A-Za-z0-9_]{{40,255}}+",
    "gitlab-token": r"gl(?:pat|oas|dt|rtr?|cbt|ptt|ft|imt|agent|wt|soat|ffct)-"
    rf"{_WORD}{{20,300}}+(?:\.[A-Za-z0-9]{{2,9}})*+|GR1348941{_WORD}{{20,64}}+",
    "slack-token": r"xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,255}+|xapp-[0-9]-[A-Za-z0-9-]{10,255}+"
    r"|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9_/]{8,255}+",
    "google-key": rf"AIza{_WORD}{{35}}(?!{_WORD})|GOCSPX-{_WORD}{{20,64}}+"
    rf"|ya29\.(?:[a-z]\.){{0,2}}+{_WORD}{{20,512}}+|1//0{_WORD}{{40,255}}+",
    "stripe-key": rf"(?:sk|rk)_(?:org_)?(?:live|test)_[A-Za-z0-9]{{10,255}}+{_END}"
    r"|whsec_[A-Za-z0-9+/=]{24,128}+",
    "minichat-key": r"mck_[a-z2-7]{18,1720}+_[a-z2-7]{20,64}+",
    "npm-token": rf"npm_[A-Za-z0-9]{{36}}{_END}",
    "pypi-token": rf"pypi-{_WORD}{{16,1024}}+",
}

RULES = (
    Rule("private-key", re.compile(rf"-----BEGIN {_PEM_LABEL}(?:{_PEM_BODY}-----END {_PEM_LABEL}|{_PEM_LINES})")),
    _field("password", _LOGIN_NAMES),
    _field("api-key", _KEY_NAMES),
    Rule(
        "jwt",
        re.compile(
            rf"{_WORD_START}eyJ{_WORD}{{5,}}+\.(?:{_WORD}{{5,}}+\.{_WORD}*+|\.{_WORD}{{5,}}+\.{_WORD}++)"
            rf"(?:\.{_WORD}++){{0,2}}"
        ),
    ),
    Rule(
        "openai-key",
        re.compile(
            rf"{_START}sk-(?=[A-Za-z_-]{{0,80}}[0-9])"
            rf"(?:(?:proj|svcacct|service|admin|None|ant|or)-{_WORD}{{16,}}+|[A-Za-z0-9]{{20,}}+{_WORD}*+)"
        ),
    ),
    Rule("aws-key-id", re.compile(rf"{_START}(?:AKIA|ASIA)[A-Z0-9]{{16}}(?![A-Za-z0-9])")),
    *(Rule(kind, re.compile(rf"{_START}(?:{shape})")) for kind, shape in _ISSUED.items()),
    # The password of `scheme://user:password@host`: without a user, too, as Redis has it, and with what should be
    # escaped. What begins with a port is a path.
    Rule(
        "password",
        re.compile(
            rf"(?P<kept>[A-Za-z]://[^{_NOT_IN_URLS}/?#:@\[\]]{{0,128}}+:)(?!\d{{1,5}}[/?#])"
            rf"[^{_NOT_IN_URLS}@\[]{{1,256}}+"
            rf"(?:@(?=[^{_NOT_IN_URLS}/?#@\[]{{0,128}}+@)[^{_NOT_IN_URLS}@\[]{{0,256}}+){{0,4}}+(?=@[\w\[-])"
        ),
    ),
    Rule(
        "password",
        re.compile(
            rf"(?P<kept>(?i:jdbc:oracle:[a-z]{{1,9}}:)[^{_NOT_IN_URLS}/@:]{{1,128}}+/)[^{_NOT_IN_URLS}@/\[]{{1,128}}+(?=@)"
        ),
    ),
    # ODBC puts braces around a value with punctuation.
    Rule("password", re.compile(r"(?P<kept>;[ \t]{0,8}(?i:pwd|password)[ \t]{0,8}=[ \t]{0,8})\{[^{}\r\n]{1,256}+\}")),
    Rule("azure-key", re.compile(rf"{_START}[A-Za-z0-9]{{52}}JQQJ9[A-Za-z0-9]{{27,}}+")),
    Rule("azure-key", re.compile(r"[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}")),
    Rule(
        "azure-key",
        re.compile(
            rf"(?:(?<![A-Za-z0-9+/]){_NO_DIGEST}|{_AFTER_ESCAPE}){_MIXED}"
            r"(?:[A-Za-z0-9+/]{86}==|[A-Za-z0-9+/]{43}=)(?!=)"
        ),
    ),
    Rule(
        "bearer",
        re.compile(
            r"(?P<kept>(?i:(?<![A-Za-z0-9])bearer)(?:\s|%20){1,8}+)"
            rf"(?:(?=[A-Za-z._~+/=-]*+[0-9]){_BEARER}{{16,}}+|{_BEARER}{{32,}}+)"
        ),
    ),
    Rule(
        "bearer",
        re.compile(
            r"(?P<kept>(?i:authorization)[\\\"'\s]{0,8}[:=][\\\"'\s]{0,8}(?i:bearer|basic)(?:\s|%20){1,8}+)"
            rf"{_BEARER}{{8,}}+"
        ),
    ),
    Rule("base64", re.compile(rf"(?<!{_BASE64})(?={_BASE64}{{0,200}}?[A-Za-z0-9]{{20}}){_BASE64}{{201,}}+")),
)
"""In the order in which they are applied: what would tear a secret apart comes after what takes it whole."""

KINDS = frozenset(rule.kind for rule in RULES)
"""Every kind of secret that a mark can name."""

_NAMES = (
    (RULES[1].mark, re.compile(rf"(?i:{_LOGIN_NAMES})\Z")),
    (RULES[2].mark, re.compile(rf"(?i:{_KEY_NAMES})\Z")),
)


def redact_text(text: str) -> str:
    """The text with a mark in place of each secret, and at most `MAX_BYTES` long; applying it again changes nothing."""
    # A mark or a cut can bring to light what its surroundings hid. After the first pass the text is short.
    while (safe := _cut(_marked(text))) != text:
        text = safe
    return text


def redact(value: Json) -> Json:
    """The value with every string in it redacted, those under the name of a secret whole. Names are redacted too."""
    match value:
        case str():
            return redact_text(value)
        case list():
            return [redact(item) for item in value]
        case dict():
            return {redact_text(name): _member(name, item) for name, item in value.items()}
        case _:
            return value


def _member(name: str, value: Json) -> Json:
    if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
        for mark, pattern in _NAMES:
            if pattern.search(name):
                return mark
    return redact(value)


def _marked(text: str) -> str:
    for rule in RULES:
        text = rule.apply(text)
    return text


def _cut(text: str) -> str:
    encoded = text.encode("utf-8", "surrogatepass")  # JSON can hold half a character
    if len(encoded) <= MAX_BYTES:
        return text
    end = MAX_BYTES - len(CUT)
    while encoded[end] & 0b1100_0000 == 0b1000_0000:
        end -= 1
    kept = encoded[:end].decode("utf-8", "surrogatepass")
    bracket = kept.rfind("[")
    if bracket >= 0 and "]" not in kept[bracket:] and "[redacted:".startswith(kept[bracket:][:10]):
        kept = kept[:bracket]
    return kept + CUT
