"""Log to Weights & Biases, with or without an account or a server."""
