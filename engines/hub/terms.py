"""The licence that something is published under, in the hub's words."""

from __future__ import annotations

from pflx.engines.graphs.protocol import import_backend
from pflx.engines.hub.address import HubError

_OTHER = "other"


def check_licence(name: str) -> str:
    """The name in small letters, as the hub has it.

    Args:
        name: an SPDX id, in any letters; or `other`.

    Raises:
        HubError: it is neither.
        BackendMissingError: packaging is not installed, which knows the ids.
    """
    lower = name.lower()
    if lower == _OTHER:
        return lower
    needs = ("canonicalize_license_expression", "InvalidLicenseExpression")
    licenses = import_backend("packaging.licenses", "pip install 'pflx[hub]'", needs=needs)
    try:
        known = licenses.canonicalize_license_expression(name).lower() == lower and " " not in name
    except licenses.InvalidLicenseExpression:
        known = False
    if not known:
        raise HubError(
            f"--license is '{name}', which is no SPDX id like mit or cc-by-nc-4.0. Give one, or 'other' and "
            "a README.md in the bundle that says which."
        )
    return lower
