"""The parent of the daemon: ends its rights when it dies, and starts it again."""
