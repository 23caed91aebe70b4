from types import SimpleNamespace

from keypoint_detection.tracking.tables import log_table


def test_a_table_reaches_the_logger_as_lists():
    logged = {}
    logger = SimpleNamespace(
        _experiment=None, log_table=lambda key, columns, data: logged.update(key=key, columns=columns, data=data)
    )
    log_table(logger, "t", ("a", "b"), [(1, 2), (3, None)])
    assert logged == {"key": "t", "columns": ["a", "b"], "data": [[1, 2], [3, None]]}
