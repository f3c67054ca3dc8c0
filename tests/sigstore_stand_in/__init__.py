"""A complete Sigstore on loopback, for tests: what signs and verifies talks to it as to any other instance.

Fulcio (both APIs), a CT log, Rekor 1 and 2, a timestamp authority and an OIDC issuer; all that they sign is signed for
real, and checked by clients for real. ``python -m sigstore_stand_in FOLDER`` runs one by hand.
"""

from __future__ import annotations

from sigstore_stand_in.instance import StandIn, Trouble

__all__ = ["StandIn", "Trouble"]
