"""Apply rulesets: one transaction each, in our own tables only."""

from __future__ import annotations

from hanat.errors import AbsentObjectError
from hanat.kernel.fingerprint import Fingerprints
from hanat.kernel.nfnetlink import NfNetlink
from hanat.kernel.nft import NftLibrary
from hanat.kernel.nft_encoding import encoded


class KernelFirewall:
    """Implements `ports.Firewall` over libnftables, what a rotation changes over netlink.

    Args:
        nft: To share with the gate; None: one of its own.
    """

    def __init__(self, nft: NftLibrary | None = None) -> None:
        self._nft, self._trying = nft or NftLibrary(), NftLibrary(dry_run=True, kept=False)
        self._fingerprints, self._netlink = Fingerprints(), NfNetlink()

    def close(self) -> None:
        """Release the library's contexts and the socket; the next call opens others."""
        self._nft.close()
        self._trying.close()
        self._fingerprints.close()
        self._netlink.close()

    def apply(self, script: str) -> None:
        """See `ports.Firewall.apply`."""
        messages = encoded(script)
        if messages is not None:
            self._netlink.run(messages, operation="apply the ruleset", target="nftables")
            return
        self._nft.run(script, operation="apply the ruleset", target="nftables")

    def check(self, script: str) -> None:
        """See `ports.Firewall.check`."""
        self._trying.run(script, operation="check the ruleset", target="nftables")

    def table(self, family: str, name: str) -> str | None:
        """See `ports.Firewall.table`."""
        return _list(self._nft, family, name)

    def names(self, family: str, name: str) -> tuple[tuple[str, str], ...]:
        """See `ports.Firewall.names`."""
        return self._fingerprints.names(family, name)

    def fingerprint(self, family: str, name: str) -> bytes | None:
        """See `ports.Firewall.fingerprint`."""
        return self._fingerprints.of(family, name)


def _list(nft: NftLibrary, family: str, name: str) -> str | None:
    words = f"list table {family} {name}"
    try:
        return nft.run(words, operation=words, target="nftables")
    except AbsentObjectError:
        return None
