"""Apply rulesets: one transaction each, in our own tables only."""

from __future__ import annotations

import re

from hanat.errors import AbsentObjectError
from hanat.kernel.nft import NftLibrary

# The sets that the gate's rights are members of, up to their elements.
_RIGHTS = re.compile(r"(set (?:answers|carries|permit) \{[^}]*?)\s*elements = \{[^}]*\}")


class KernelFirewall:
    """Implements `ports.Firewall` over libnftables."""

    def __init__(self) -> None:
        self._nft, self._trying = NftLibrary(), NftLibrary(dry_run=True)
        self._plain = NftLibrary(stateless=True)

    def close(self) -> None:
        """Release the library's contexts; the next call opens others."""
        self._nft.close()
        self._trying.close()
        self._plain.close()

    def apply(self, script: str) -> None:
        """See `ports.Firewall.apply`."""
        self._nft.run(script, operation="apply the ruleset", target="nftables")

    def check(self, script: str) -> None:
        """See `ports.Firewall.check`."""
        self._trying.run(script, operation="check the ruleset", target="nftables")
        self._trying.close()  # rarely needed, and it remembers every table of the kernel

    def table(self, family: str, name: str) -> str | None:
        """See `ports.Firewall.table`."""
        return _list(self._nft, family, name)

    def steady(self, family: str, name: str) -> str | None:
        """See `ports.Firewall.steady`."""
        text = _list(self._plain, family, name)
        self._plain.close()  # or it remembers all tables of the kernel
        return None if text is None else _RIGHTS.sub(r"\1", text)


def _list(nft: NftLibrary, family: str, name: str) -> str | None:
    words = f"list table {family} {name}"
    try:
        return nft.run(words, operation=words, target="nftables")
    except AbsentObjectError:
        return None
