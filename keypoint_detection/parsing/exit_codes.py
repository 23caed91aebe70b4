"""Exit codes of the commands; apart from all that parses, so that `kpd` answers at once."""

# Something failed while a command was running.
FAILURE = 1

# The arguments, or the data that they name, are wrong; argparse's own code for it.
USAGE_ERROR = 2
# A process ended by a signal exits with this plus the number of the signal.
SIGNAL_EXIT_BASE = 128
