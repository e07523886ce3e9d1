"""PySyncObj and what makes it safe to use; its only home."""
