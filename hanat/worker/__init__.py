"""The flow worker: the stream of flows from the holder's kernel to the backups'."""
