import pytest
from spot_detector import make_checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    return make_checkpoint(tmp_path, image_size=(48, 64))
