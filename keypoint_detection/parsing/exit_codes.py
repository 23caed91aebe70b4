"""Exit codes of the commands; kept apart from all parsing code, so that `kpd` answers immediately."""

# Something failed while a command was running.
FAILURE = 1

# The arguments, or the data that they name, are wrong; argparse uses the same code.
USAGE_ERROR = 2
# A process ended by a signal exits with this plus the number of the signal.
SIGNAL_EXIT_BASE = 128
