"""Whether `pflx serve` answers: exit code 0 or 1, for a container's health check.

Any answer that is no error of the server's will do: under a name that is not the server's own it refuses (421), but it
lives. `PFLX_HEALTH_URL` names another address than http://127.0.0.1:8000/; the certificate of an https one is
not judged.
"""

from __future__ import annotations

import os
import ssl
import sys
from urllib.error import HTTPError, URLError
from urllib.request import urlopen


def answers(url: str) -> bool:
    """Whether a server answers there within three seconds, with no status of 500 or more."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urlopen(url, timeout=3, context=context):
            return True
    except HTTPError as error:
        return error.code < 500
    except (URLError, OSError) as error:
        print(f"{url} does not answer: {error}", file=sys.stderr)
        return False


if __name__ == "__main__":
    sys.exit(not answers(os.environ.get("PFLX_HEALTH_URL", "http://127.0.0.1:8000/")))
