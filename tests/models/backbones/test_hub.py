import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants
from huggingface_hub.constants import is_offline_mode

from keypoint_detection.models.backbones.encoders import PYRAMID, create_encoder, load_encoder_weights
from keypoint_detection.models.backbones.hub import find_obstacle, keeping_to_cache

# Nobody listens there.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def server() -> Iterator[str]:
    """A server that answers everything with 501."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as one:
        threading.Thread(target=one.handle_request, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}"


def test_a_server_that_answers_is_no_obstacle(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", server)
    assert find_obstacle() is None


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    assert str(find_obstacle()).startswith(f"{NOWHERE} cannot be reached: [Errno ")


def test_the_client_keeps_to_its_cache_for_a_while() -> None:
    before = is_offline_mode()
    with keeping_to_cache():
        assert is_offline_mode()
    assert is_offline_mode() == before


def test_without_a_network_the_client_does_not_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    encoder = create_encoder("mobilenetv3_small_050")

    def sleep(seconds: float) -> None:
        raise AssertionError("waits to try again")

    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", sleep)
    with pytest.raises(ValueError, match=rf"cannot be downloaded \({NOWHERE} cannot be reached.*Download model"):
        load_encoder_weights(encoder.module, "mobilenetv3_small_050", True, PYRAMID)
    assert not is_offline_mode()
