"""A judged run as text, pictures and JSON."""
