"""One suite for the real adapters and their fakes."""
