"""What a run shows and writes: images, tables, files."""
