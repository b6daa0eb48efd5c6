"""Engines: tiles in, tiles out."""
