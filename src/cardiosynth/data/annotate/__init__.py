"""Masks where there are none: from given files and from programs of others, merged by name into one mask."""
