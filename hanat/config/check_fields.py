"""Single values of a check: what is sent, what is expected, of whom, and how often.

Like `hanat.config.fields`: whatever TOML delivered in, a value out, or ValueError with a sentence
that says what was found and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hanat.config.fields import duration, parse_host, parse_text, show, whole_number
from hanat.config.patterns import problem_with_regex
from hanat.core.checks import Pattern

# Ten probes a second give a verdict in a third of one. What is asked less than every hour is no
# check of what clients meet.
INTERVAL_S = (0.1, 3600.0)
INTERVAL_DEFAULT_S = 2.0  # HAProxy's `inter`
TIMEOUT_S = (0.01, 3600.0)
TIMEOUT_DEFAULT_S = 1.0
SCRIPT_INTERVAL_S_MIN = 1.0  # each probe is a new process
COUNT_MAX = 100  # results in a row

SEND_BYTES_MAX = 1_400  # a datagram of this is not fragmented
TEXT_CHARS_MAX = 1_024
HEADERS_MAX = 16
ARGUMENT_CHARS_MAX = 256
PING_BYTES_MAX = 1_400
PING_COUNT_MAX = 10
WARN_DAYS_MAX = 365
MARK_MAX = 2**32 - 1

KINDS = ("tcp", "udp", "tls", "http", "https", "dns", "ping", "script", "agent")
METHODS = ("GET", "HEAD", "OPTIONS", "POST")
RECORD_TYPES = (
    "A", "AAAA", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "SVCB",
    "TXT",
)  # fmt: skip
RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")

HEX = "hex:"
SCRIPT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # RFC 9110, section 5.6.2
HTTP_PATH = re.compile(r"/[!\"$-~]*")  # what a request line may have; no "#", that is a browser's
HTTP_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
# Those that the prober makes itself.
OWN_HEADERS = {
    "host": "write host",
    "connection": "leave it out",
    "content-length": "leave it out",
    "transfer-encoding": "leave it out",
}
DNS_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
DAYS = re.compile(r"([0-9]{1,3}) ?d")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def parse_bytes(value: object) -> bytes:
    """Return text in UTF-8, or the bytes of ``hex:00 ff``."""
    text = parse_text(value)
    content = text.encode()
    if text.startswith(HEX):
        try:
            content = bytes.fromhex(text.removeprefix(HEX))
        except ValueError:
            raise ValueError(
                f'{show(text)} is not hexadecimal: write two digits a byte, "hex:0d0a"'
            ) from None
    if not 1 <= len(content) <= SEND_BYTES_MAX:
        raise ValueError(f"must have from 1 to {SEND_BYTES_MAX} bytes, found {len(content)}")
    return content


def parse_line(most: int) -> Callable[[object], str]:
    """Return a parser of printable text of at most so many characters."""

    def parse(value: object) -> str:
        text = parse_text(value)
        if len(text) > most:
            raise ValueError(f"must have at most {most} characters, found {len(text)}")
        if not text.isprintable():
            raise ValueError(f"{show(text)} has control characters")
        return text

    return parse


def parse_regex(value: object) -> Pattern:
    """Return a regular expression that RE2 takes."""
    text = parse_text(value)
    if problem := problem_with_regex(text):
        raise ValueError(f"{show(text)} is not a regular expression of RE2: {problem}")
    return Pattern(text, is_regex=True)


def parse_body(value: object) -> Pattern:
    """Return text that must occur."""
    text = parse_text(value)
    if len(text) > TEXT_CHARS_MAX:
        raise ValueError(f"must have at most {TEXT_CHARS_MAX} characters, found {len(text)}")
    return Pattern(text)


def parse_http_path(value: object) -> str:
    """Return what is asked for, with its query."""
    text = parse_line(TEXT_CHARS_MAX)(value)
    if not HTTP_PATH.fullmatch(text):
        raise ValueError(
            f'{show(text)} is not a path: write it like "/health?full=1", from its slash on, '
            "without blanks; other characters as %20"
        )
    return text


def parse_http_host(value: object) -> str:
    """Return what the Host header says: a name or address, with a port or without."""
    text = parse_text(value)
    if not HTTP_HOST.fullmatch(text):
        raise ValueError(f'{show(text)} is not a host: write "www.example.org" or with its port')
    return text.lower()


def parse_headers(value: object) -> tuple[tuple[str, str], ...]:
    """Return names and values, sorted by name."""
    if not isinstance(value, dict):
        example = '{ Accept = "text/plain" }'
        raise ValueError(f"must be a table like {example}, found {show(value)}")  # noqa: TRY004
    if len(value) > HEADERS_MAX:
        raise ValueError(f"has {len(value)} entries, at most {HEADERS_MAX} are possible")
    found: dict[str, tuple[str, str]] = {}
    for name, content in value.items():
        if not TOKEN.fullmatch(name):
            raise ValueError(f"{show(name)} is not the name of a header")
        if name.lower() in OWN_HEADERS:
            raise ValueError(f"{name} is made by the check itself: {OWN_HEADERS[name.lower()]}")
        if name.lower() in found:
            raise ValueError(f"{name} is there twice")
        found[name.lower()] = (name, _header(name, content))
    return tuple(found[name] for name in sorted(found))


def _header(name: str, value: object) -> str:
    if isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - pydantic reports ValueError
            f"{name} is a table; this version reads no secret from a file, write the value in "
            "quotes (whoever may see the configuration sees it)"
        )
    try:
        text = parse_line(TEXT_CHARS_MAX)(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not text.isascii() or text != text.strip():
        raise ValueError(f"{name}: {show(text)} has blanks around it, or other than ASCII")
    return text


def parse_statuses(value: object) -> tuple[tuple[int, int], ...]:
    """Return ranges of status codes, sorted and joined: ``"200-299,401"``."""
    if not isinstance(value, str):
        example = 'write "200", "200-299" or "200-299,401"'
        raise ValueError(f"must be text in quotes, found {show(value)}; {example}")  # noqa: TRY004
    ranges = []
    for part in parse_text(value).split(","):
        match = re.fullmatch(r"\s*([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(
                f'{show(part.strip())} is not a status or a range of them: write "200-299,401", '
                "from 100 to 599, the lower one first"
            )
        ranges.append((int(match[1]), int(match[2] or match[1])))
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def parse_digest(value: object) -> str:
    """Return a SHA-256 in lower-case hexadecimal."""
    text = parse_text(value)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        md5 = " (32 digits are MD5, as keepalived's genhash makes it)" if len(text) == 32 else ""
        raise ValueError(
            f'{show(text)} is not a SHA-256 of 64 hexadecimal digits{md5}: run "curl -s URL | '
            'sha256sum"'
        )
    return text.lower()


def parse_warn(value: object) -> int:
    """Return days: ``"14d"``."""
    text = parse_text(value)
    match = DAYS.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= WARN_DAYS_MAX:
        raise ValueError(f'{show(text)} is not a number of days: write "1d" to "{WARN_DAYS_MAX}d"')
    return int(match[1])


def parse_dns_name(value: object) -> str:
    """Return an absolute name in lower case: ``example.org.``; ``.`` is the root."""
    text = parse_text(value).lower()
    labels = text.removesuffix(".").split(".") if text != "." else []
    if len(text) > 253 or not all(DNS_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f'{show(text)} is not a name to ask for: write "www.example.org" or "."')
    return "".join(f"{label}." for label in labels) or "."


def parse_script(value: object) -> str:
    """Return the file's name of a script, never a path."""
    text = parse_text(value)
    if "/" in text:
        raise ValueError(
            f"{show(text)} is a path: write the file's name alone; each node's node.toml says in "
            "which folder scripts are ([checker] scripts)"
        )
    if not SCRIPT_NAME.fullmatch(text):
        raise ValueError(
            f"{show(text)} is not the name of a script: up to 63 letters, digits, dots, "
            "underscores or hyphens, a letter or digit first"
        )
    return text


def parse_argument(value: object) -> str:
    """Return what a script is told; may be empty."""
    return "" if value == "" else parse_line(ARGUMENT_CHARS_MAX)(value)


def parse_sni(value: object) -> str:
    """Return a name to ask for in a TLS handshake."""
    text = parse_host(value)
    if re.fullmatch(r"[0-9.]+", text):
        raise ValueError(f"{show(text)} is an address; a handshake asks for a name (RFC 6066)")
    return text


parse_interval = duration(*INTERVAL_S)
parse_timeout = duration(*TIMEOUT_S)
parse_count = whole_number(1, COUNT_MAX)
parse_mark = whole_number(1, MARK_MAX)


def parse_user(value: object) -> str:
    """Return the user that scripts run as."""
    text = parse_text(value)
    if not USER.fullmatch(text):
        raise ValueError(f"{show(text)} is not a user's name")
    if text == "root":
        raise ValueError('is "root", and scripts never run as root: write another user')
    return text
