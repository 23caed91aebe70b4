"""What is filled in, refused and warned of before a training or a measurement starts."""
