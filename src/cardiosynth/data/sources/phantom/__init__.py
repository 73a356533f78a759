"""Procedural cardiac CT angiographies: an anatomy of smooth shapes, an acquisition protocol, and a renderer."""
