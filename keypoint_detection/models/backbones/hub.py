"""Find out in seconds whether the hub that timm's weights come from can be reached."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

# Long enough for a slow proxy; the hub's own client would keep trying for a minute.
TIMEOUT_S = 5


def find_obstacle() -> str | None:
    """Check once whether the hub answers.

    Returns: The reason why it cannot be reached; None if it gives any answer.
    """
    from huggingface_hub import constants

    found: list[str | None] = []
    # A daemon thread, as a failing name lookup can take longer than any connection timeout.
    thread = threading.Thread(target=lambda: found.append(_ask(constants.ENDPOINT)), daemon=True)
    thread.start()
    thread.join(2 * TIMEOUT_S)
    reason = found[0] if found else "no answer"
    return f"{constants.ENDPOINT} cannot be reached: {reason}" if reason else None


def _ask(address: str) -> str | None:
    try:
        # Respects the proxies set in the environment, as the hub's client does.
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        return str(getattr(error, "reason", error))


@contextmanager
def keeping_to_cache() -> Iterator[None]:
    """Restrict the hub's client to files it has already downloaded, without any request."""
    from huggingface_hub import constants

    previous = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = previous
