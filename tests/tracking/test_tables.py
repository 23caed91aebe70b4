import logging
from types import SimpleNamespace

import pytest

from keypoint_detection.tracking.tables import going_on_without_server, log_table


def test_a_server_that_is_gone_costs_a_warning_not_the_run(caplog):
    from wandb.errors import CommError

    with caplog.at_level(logging.WARNING), going_on_without_server("the table a"):
        raise CommError("no route\nto host")
    assert "the table a could not be sent (no route)" in caplog.text


def test_other_errors_are_not_hidden():
    with pytest.raises(KeyError), going_on_without_server("the table a"):
        raise KeyError("a bug")


def test_a_table_reaches_the_logger_as_lists():
    logged = {}
    logger = SimpleNamespace(log_table=lambda key, columns, data: logged.update(key=key, columns=columns, data=data))
    log_table(logger, "t", ("a", "b"), [(1, 2), (3, None)])
    assert logged == {"key": "t", "columns": ["a", "b"], "data": [[1, 2], [3, None]]}
