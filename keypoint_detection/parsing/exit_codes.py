"""Exit codes of the commands; apart from all that parses, so that `kpd` answers at once."""

__all__ = ["USAGE_ERROR"]

# The arguments, or the data that they name, are wrong; argparse's own code for it.
USAGE_ERROR = 2
