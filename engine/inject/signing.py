"""The DKIM signers of the customers that have keys.

Owns: which key signs for a customer's From domain.
Never: signs itself (message.dkim does).
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.core.errors import ConfigError, Origin
from engine.message.dkim import Signer, load_key, sign_message
from engine.settings.model import Settings


class Signers:
    """Signers by (customer, From domain)."""

    def __init__(self, settings: Settings, keys: Mapping[str, str]) -> None:
        """Raises: ConfigError: a key can't be read."""
        self._signers: dict[tuple[str, str], list[Signer]] = {}
        for customer in settings.customers.values():
            for row in customer.dkim:
                try:
                    signer = Signer(row.domain, row.selector, load_key(keys[row.key].encode()))
                except ValueError as error:
                    raise ConfigError(Origin(row.key, 0), str(error)) from error
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
