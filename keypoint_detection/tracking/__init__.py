"""What is sent to Weights & Biases, and what happens without an account or a server."""
