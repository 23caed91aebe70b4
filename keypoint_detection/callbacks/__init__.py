"""What a run shows and writes: pictures, tables, files."""
