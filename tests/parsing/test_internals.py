"""What the package assumes of the insides of jsonargparse; a new version may break it."""

import pytest
from jsonargparse import ArgumentParser

from keypoint_detection.parsing.internals import drop_arguments_of_old_classes, let_stand_alone, list_option_strings


class Old:
    def __init__(self, shared: int = 1):
        self.shared = shared


class Both(Old):
    def __init__(self, shared: int = 1, own: int = 2):
        super().__init__(shared)
        self.own = own


class Flagged:
    def __init__(self, flag: bool = False):
        self.flag = flag


def test_options_of_commands_are_listed():
    child = ArgumentParser()
    child.add_argument("--inner")
    parser = ArgumentParser()
    parser.add_argument("--outer")
    parser.add_subcommands().add_subcommand("child", child)
    assert {"--outer", "--inner"} <= set(list_option_strings(parser))


@pytest.mark.filterwarnings("ignore")
def test_a_new_class_does_not_inherit_the_arguments_of_the_old_one():
    drop_arguments_of_old_classes()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Old, "thing")
    words = ["--thing", f"{__name__}.Old", "--thing.shared=5", "--thing", f"{__name__}.Both"]
    parsed = parser.parse_args(words)
    thing = parser.instantiate_classes(parsed).thing
    assert (type(thing).__name__, thing.shared) == ("Both", 1)


def test_a_flag_stands_alone_under_either_name():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Flagged, "old")
    let_stand_alone(parser, "--old.flag", "--flag")
    for words, value in (([], False), (["--flag"], True), (["--old.flag"], True), (["--flag=false"], False)):
        assert parser.parse_args(words).old.flag is value
