"""The papers as frozen values, and the wiring of their stages."""
