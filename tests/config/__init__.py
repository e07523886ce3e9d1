"""The two files and the key, read from real directories."""
