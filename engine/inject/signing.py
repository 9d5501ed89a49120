"""The DKIM signers of the customers that have keys.

Owns: which key signs for a customer's From domain.
Never: signs itself (message.dkim does).
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.message.dkim import PrivateKey, Signer, sign_message
from engine.settings.model import Settings


class Signers:
    """Signers by (customer, From domain)."""

    def __init__(self, settings: Settings, keys: Mapping[str, PrivateKey]) -> None:
        """`keys`: by the path that the settings name."""
        self._signers: dict[tuple[str, str], list[Signer]] = {}
        for customer in settings.customers.values():
            for row in customer.dkim:
                signer = Signer(row.domain, row.selector, keys[row.key])
                self._signers.setdefault((customer.name, row.domain), []).append(signer)

    def sign(self, customer: str, domain: str, message: bytes, unix_now: float) -> bytes:
        """Return the DKIM-Signature fields for a message, one for each key of its From domain. HOT.

        A key of a parent domain signs too where the domain itself has none (relaxed alignment, RFC 7489).
        """
        while domain:
            signers = self._signers.get((customer, domain))
            if signers is not None:
                return sign_message(message, signers, unix_now)
            domain = domain.partition(".")[2]
        return b""
