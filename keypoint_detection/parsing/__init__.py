"""Command-line parsing on top of jsonargparse, free of Lightning."""
