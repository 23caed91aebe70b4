"""Numbers of things in words."""

__all__ = ["count_in_words"]


def count_in_words(number: int, one: str, many: str | None = None) -> str:
    """Count in words.

    Args:
        number: of things.
        one: what one of them is called, with its verb where there is one.
        many: what several, or none, are called; left out, the same with an s.

    >>> count_in_words(1, "image"), count_in_words(0, "image"), count_in_words(2, "box is", "boxes are")
    ('1 image', '0 images', '2 boxes are')
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"
