"""Pluralise counted nouns."""


def count_in_words(number: int, one: str, many: str | None = None) -> str:
    """Write a number and what it counts.

    Args:
        number: how many there are.
        one: the singular, with its verb if it has one.
        many: the plural, also used for zero; by default, the singular with an s.

    >>> count_in_words(1, "image"), count_in_words(0, "image"), count_in_words(2, "box is", "boxes are")
    ('1 image', '0 images', '2 boxes are')
    """
    return f"{number} {agree(number, one, many)}"


def agree(number: int, one: str, many: str | None = None) -> str:
    """Return the words that agree with a number, without the number itself.

    Args:
        number: how many there are.
        one: the singular.
        many: the plural, also used for zero; by default, the singular with an s.

    >>> agree(1, "channel has", "channels have"), agree(2, "channel has", "channels have")
    ('channel has', 'channels have')
    """
    return one if number == 1 else many or f"{one}s"
