import os
import threading

import pytest

from keypoint_detection.parsing.arguments import (
    find_checkpoint_path,
    find_configs,
    find_unknown_keys,
    prepare_words,
    refuse_broken_configs,
    variables_as_words,
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["--a=1", "--config=x", "-c", "y", "--b=2"], ["--a=1", "--config=x", "-c", "y", "--b=2"]),
        (["--a=None", "--b", "16.0", "--c=16.0"], ["--a=null", "--b", "16.0", "--c=16"]),
        (["--a.b=1", "--config=x", "--a=C"], ["--a=C", "--a.b=1", "--config=x"]),
        (["-c"], ["-c"]),
    ],
)
def test_words_keep_their_order_but_for_classes(words, expected):
    assert prepare_words(words) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["--a=config", "config"], []),
        (["-c", "x", "--a=1", "--config", "y", "--config=z"], [(1, "", "x"), (4, "", "y"), (5, "--config=", "z")]),
        (["--a=1", "-c"], []),  # the parser says what is missing
        (["--config="], [(0, "--config=", "")]),
    ],
)
def test_configs_are_found_in_each_form_of_the_option(words, expected):
    found = find_configs(words)
    assert [(position, *config) for position, config in found.items()] == expected


def test_a_config_from_a_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "pipe"
    for form in ([f"--config={pipe}"], ["--config", str(pipe)]):
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_text, args=("model: {lr: 1}\nckpt_path: a.ckpt\n",))
        writer.start()
        words = prepare_words(form)
        writer.join()
        assert find_checkpoint_path(words) == "a.ckpt"
        pipe.unlink()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, []),
        ({"KPD_FIT__DATA__BATCH_SIZE": "4"}, []),  # the parser reads it
        ({"KPD_FIT__MODEL__BACKBONE__N_CHANNELS": "4"}, ["--model.backbone.n_channels=4"]),
        ({"KPD_FIT__MODEL__LR_SCHEDULER__T_max": "4"}, ["--model.lr_scheduler.T_max=4"]),
        ({"KPD_FIT__MODEL__LRR": "4"}, ["--model.lrr=4"]),  # a mistake, for the parser to name
        ({"KPD_TEST__MODEL__LRR": "4", "KPD_CACHE": "x"}, []),
    ],
)
def test_variables_that_the_parser_does_not_know_become_words(variables, expected):
    assert variables_as_words("fit", ["--data.batch_size", "--model.backbone"], variables) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit"], None),
        (["test", "--ckpt_path=a.ckpt"], "a.ckpt"),
        (["test", "--ckpt_path", "a.ckpt", "--ckpt_path=b.ckpt"], "b.ckpt"),
        (["fit", "--ckpt_path=null"], None),
        (["fit", "--config=c.yaml"], "from_config.ckpt"),
        (["fit", "-c", "c.yaml", "--ckpt_path=a.ckpt"], "a.ckpt"),
        (["fit", "--config", "none.yaml"], None),
    ],
)
def test_the_last_checkpoint_that_is_named_counts(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("ckpt_path: from_config.ckpt")
    assert find_checkpoint_path(words) == expected


OPTIONS = ["--model", "--model.lr", "--model.backbone", "--model.backbone.help", "--data.train", "--seed", "--list+"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:\n  lr: 1\n  backbone:\n    class_path: x\n    init_args: {y: 1}\nseed: 1\nlist+: [1]\n", []),
        ("", []),
        ("- 1", []),
        ("model: [", []),  # the parser says what is wrong
        ("seed: 1\nmodle:\n  lr: 1\n", ["line 2: there is no option modle; did you mean model?"]),
        ("model:\n  lr: 1\n\n  lrr: 2\n", ["line 4: there is no option model.lrr; did you mean model.lr?"]),
        (
            "data: {trian: a, zzz: 1}",
            ["line 1: there is no option data.trian; did you mean data.train?", "line 1: there is no option data.zzz."],
        ),
        ("seed: 1\ndata:\nmodel: ~\n", []),
        ("seed: 1\ndata: [1]\n", ["line 2: data is a list; expected its options, indented below `data:`"]),
        ("data: 3\n", ["line 1: data is '3'; expected its options, indented below `data:`"]),
        ("model: x\n", ["line 1: model is 'x'; expected its options, indented below `model:`"]),
        ("data: c.yaml\n", []),  # a file of its settings, beside the config
    ],
)
def test_unknown_keys_of_configs_are_found_with_their_lines(text, expected, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    found = find_unknown_keys(["--config", str(path)], OPTIONS)
    assert len(found) == len(expected)
    assert all(text.startswith(f"{path}, {line}") for text, line in zip(found, expected, strict=True))


@pytest.mark.parametrize("text", ["model:\n  lr: 0.1\n  lr: 0.2\n", "a: 1\nmodel: {}\nmodel: {}\n"])
def test_a_key_that_is_given_twice_is_refused_with_both_lines(text, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"c\.yaml, line 3: (lr|model) is given twice, first in line 2; keep one"):
        refuse_broken_configs(["--config", str(path)])


def test_a_mapping_that_is_merged_may_be_overridden(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: &a {lr: 1}\nb:\n  <<: *a\n  lr: 2\nc: *a\nd: *a\n")
    refuse_broken_configs(["--config", str(path)])


def test_labels_are_no_config(tmp_path):
    path = tmp_path / "train.json"
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(ValueError, match=r"train.json holds labels, not settings. .* --data.train"):
        refuse_broken_configs([f"--config={path}"])
