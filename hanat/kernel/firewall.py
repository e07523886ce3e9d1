"""Apply rulesets: one transaction each, in our own tables only."""

from __future__ import annotations

from hanat.errors import AbsentObjectError
from hanat.kernel.nft import NftLibrary


class KernelFirewall:
    """Implements `ports.Firewall` over libnftables."""

    def __init__(self) -> None:
        self._nft, self._trying = NftLibrary(), NftLibrary(dry_run=True)

    def close(self) -> None:
        """Release the library's contexts; the next call opens others."""
        self._nft.close()
        self._trying.close()

    def apply(self, script: str) -> None:
        """See `ports.Firewall.apply`."""
        self._nft.run(script, operation="apply the ruleset", target="nftables")

    def check(self, script: str) -> None:
        """See `ports.Firewall.check`."""
        self._trying.run(script, operation="check the ruleset", target="nftables")
        self._trying.close()  # rarely needed, and it remembers every table of the kernel

    def table(self, family: str, name: str) -> str | None:
        """See `ports.Firewall.table`."""
        try:
            return self._nft.run(
                f"list table {family} {name}", operation=f"list table {family} {name}",
                target="nftables",
            )  # fmt: skip
        except AbsentObjectError:
            return None
