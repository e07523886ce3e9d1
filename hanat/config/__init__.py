"""The two TOML files: parse, validate, turn into the values of `core.configuration`."""
